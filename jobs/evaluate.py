"""Run the job `fer_pipeline.jobs.evaluate` from a checkout."""

import sys

from fer_pipeline.jobs.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
