"""Convert CSV files or folders of images to a dataset of Parquet files."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config


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
    # Imported here so that --help needs neither Spark nor TensorFlow.
    from fer_pipeline.pipelines.preprocess import format_report, preprocess
    from fer_pipeline.spark.session import spark_session

    config = load_config(arguments.config, arguments.set)
    with spark_session("preprocess") as spark:
        manifest = preprocess(
            spark, arguments.input, arguments.output, config, overwrite=arguments.overwrite
        )
    return format_report(manifest, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
