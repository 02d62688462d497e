"""CSV files or folders of face images to a dataset in Parquet."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("preprocess", __doc__ or "")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="CSV files or folders of images per class; globs and any path that Spark reads",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that is there")
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs neither Spark nor TensorFlow.
    from fer_pipeline.spark.session import spark_session
    from fer_pipeline.stages.preprocess import preprocess, summary

    chosen = load_config(arguments.config, arguments.set)
    with spark_session("preprocess") as spark:
        made = preprocess(
            spark, arguments.input, arguments.output, chosen, overwrite=arguments.overwrite
        )
    return summary(made, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
