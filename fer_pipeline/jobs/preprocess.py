"""Convert CSV files or folders of images to a dataset of Parquet files."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fer_pipeline import cli
from fer_pipeline.config import load_config

if TYPE_CHECKING:
    from fer_pipeline.spark.session import SparkSession


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.
        program: Command that the user types to run the job, for the usage message.
    """
    return cli.run_job(_run, make_parser(program).parse_args(argv), extra="spark")


def make_parser(program: str = cli.SPARK_SUBMIT) -> argparse.ArgumentParser:
    """Return the parser of the job's options.

    Args:
        program: Command that the user types to run the job, for the usage message.
    """
    parser = cli.create_parser("preprocess", __doc__, program=program)
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="CSV files, or folders with one subfolder of images per class; also archives of them,"
        " globs and URLs",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the dataset")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Preprocess the images and return the report to print."""
    # Imported here so that --help needs no extra.
    from fer_pipeline.pipelines.preprocess import format_report, preprocess

    manifest = preprocess(
        _open_session,
        arguments.input,
        arguments.output,
        load_config(arguments.config, arguments.set),
        overwrite=arguments.overwrite,
    )
    return format_report(manifest, arguments.output)


def _open_session() -> AbstractContextManager[SparkSession]:
    """Open the job's Spark session, after the checks that need no Spark."""
    from fer_pipeline.spark.session import spark_session

    return spark_session("preprocess")


if __name__ == "__main__":
    sys.exit(main())
