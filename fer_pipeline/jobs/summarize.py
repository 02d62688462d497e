"""Print the layers of a network with shapes, parameters and multiply-adds; plot its graph.

Plotting the graph needs graphviz (apt install graphviz).
"""

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
    parser = cli.create_parser("summarize", __doc__, program=program)
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        help="output folder of a preprocess job, which sets the image size and the classes;"
        " default: the image size and classes of the configuration",
    )
    parser.add_argument(
        "--output",
        default=Path("network.png"),
        type=Path,
        metavar="FILE",
        help="file for the graph, .png, .svg or .pdf, replaced if it exists; default: %(default)s",
    )
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Summarize the network and return the text to print."""
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.pipelines.summarize import summarize

    config = load_config(arguments.config, arguments.set)
    return summarize(config, arguments.dataset, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
