"""Run the job `fer_pipeline.jobs.train` from a checkout."""

import sys

from fer_pipeline.jobs.train import main

if __name__ == "__main__":
    sys.exit(main())
