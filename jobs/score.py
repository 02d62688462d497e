"""Run the job `fer_pipeline.jobs.score` from a checkout."""

import sys

from fer_pipeline.jobs.score import main

if __name__ == "__main__":
    sys.exit(main())
