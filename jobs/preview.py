"""Run the job `fer_pipeline.jobs.preview` from a checkout."""

import sys

from fer_pipeline.jobs.preview import main

if __name__ == "__main__":
    sys.exit(main())
