"""Run the job `fer_pipeline.jobs.preprocess` from a checkout."""

import sys

from fer_pipeline.jobs.preprocess import main

if __name__ == "__main__":
    sys.exit(main())
