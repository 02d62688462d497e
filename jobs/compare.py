"""Run the job `fer_pipeline.jobs.compare` from a checkout."""

import sys

from fer_pipeline.jobs.compare import main

if __name__ == "__main__":
    sys.exit(main())
