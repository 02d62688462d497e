"""Entry point of `python -m fer_pipeline`, which is equivalent to the command `fer-pipeline`."""

import sys

from fer_pipeline.console import main

if __name__ == "__main__":
    sys.exit(main())
