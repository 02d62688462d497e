"""Run the job `fer_pipeline.jobs.export` from a checkout."""

import sys

from fer_pipeline.jobs.export import main

if __name__ == "__main__":
    sys.exit(main())
