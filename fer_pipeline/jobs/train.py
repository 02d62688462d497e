"""Train a network on a dataset; write the best weights, the history and plots of it.

With --workers the network is trained on the machines of a Spark cluster. The jobs `summarize` and
`preview` show the network and its training images before the training.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fer_pipeline import cli

if TYPE_CHECKING:
    from fer_pipeline.spark.session import SparkSession


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.
        program: Command that the user types to run the job, for the usage message.
    """
    parser = make_parser(program)
    arguments = parser.parse_args(argv)
    if arguments.workers is not None and arguments.workers < 1:
        parser.error(f"argument --workers: expected 1 or more, got {arguments.workers}")
    return cli.run_job(_run, arguments, extra="train")


def make_parser(program: str = cli.SPARK_SUBMIT) -> argparse.ArgumentParser:
    """Return the parser of the job's options.

    Args:
        program: Command that the user types to run the job, for the usage message.
    """
    parser = cli.create_parser("train", __doc__, program=program)
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="output folder of a preprocess job"
    )
    parser.add_argument("--output", required=True, metavar="RUN", help="folder for the run")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace an existing run")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue an unfinished run with its own configuration",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="train in N parallel Spark tasks, each with its part of the rows; the dataset and the"
        " run must be on a filesystem that all machines share",
    )
    cli.add_moved_option(parser, "--summary", "summarize --output PNG")
    cli.add_moved_option(parser, "--preview", "preview --dataset DIR --output PNG")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Train the network and return the report to print."""
    # Imported here so that --help needs no extra.
    from fer_pipeline.pipelines.run_config import load_run_config
    from fer_pipeline.pipelines.train import format_report, train

    dataset, output = arguments.dataset, arguments.output
    config = load_run_config(output, arguments.config, arguments.set, resume=arguments.resume)
    existing = {"overwrite": arguments.overwrite, "resume": arguments.resume}
    if arguments.workers is None:
        return format_report(train(dataset, output, config, **existing), output)
    from fer_pipeline.pipelines.train_distributed import WorkerPool, train_distributed

    workers = WorkerPool(_open_session, arguments.workers)
    return format_report(train_distributed(dataset, output, config, workers, **existing), output)


def _open_session() -> AbstractContextManager[SparkSession]:
    """Open the Spark session that starts the workers, after all checks."""
    from fer_pipeline.spark.session import spark_session

    return spark_session("train", barrier=True)


if __name__ == "__main__":
    sys.exit(main())
