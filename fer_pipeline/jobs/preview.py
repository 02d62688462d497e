"""Plot training images and their random augmentations, before training."""

import argparse
import sys
from pathlib import Path

from fer_pipeline import cli
from fer_pipeline.config import load_config


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.
        program: Command that the user types to run the job, for the usage message.
    """
    return cli.run_job(_run, make_parser(program).parse_args(argv), extra="train")


def make_parser(program: str = cli.SPARK_SUBMIT) -> argparse.ArgumentParser:
    """Return the parser of the job's options.

    Args:
        program: Command that the user types to run the job, for the usage message.
    """
    parser = cli.create_parser("preview", __doc__, program=program)
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="output folder of a preprocess job"
    )
    parser.add_argument(
        "--output",
        default=Path("preview.png"),
        type=Path,
        metavar="PNG",
        help="image file to write, replaced if it exists; default: %(default)s",
    )
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Plot the augmented images and return the text to print."""
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.pipelines.preview import preview

    config = load_config(arguments.config, arguments.set)
    return preview(arguments.dataset, config, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
