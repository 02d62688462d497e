"""Run the job `fer_pipeline.jobs.summarize` from a checkout."""

import sys

from fer_pipeline.jobs.summarize import main

if __name__ == "__main__":
    sys.exit(main())
