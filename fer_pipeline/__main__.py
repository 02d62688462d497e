"""`python -m fer_pipeline` is the command `fer-pipeline`."""

import sys

from fer_pipeline.console import main

if __name__ == "__main__":
    sys.exit(main())
