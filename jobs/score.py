"""Faces (a folder of images, a CSV or a dataset) to an emotion and its probabilities for each."""

import argparse
import sys

from fer_pipeline import cli, config


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("score", __doc__ or "")
    parser.add_argument("--model", required=True, metavar="RUN", help="a finished training run")
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders of face images of any size and colour (with their subfolders), FER2013-style"
        " CSV files, or one dataset; globs and any path that Spark reads",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder for the scores")
    parser.add_argument("--overwrite", action="store_true", help="replace scores that are there")
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs neither Spark nor TensorFlow.
    from fer_pipeline.spark.session import spark_session
    from fer_pipeline.stages.score import score, summary

    chosen = config.load(arguments.config, arguments.set)
    with spark_session("score") as spark:
        made = score(
            spark,
            arguments.model,
            arguments.input,
            arguments.output,
            chosen,
            overwrite=arguments.overwrite,
        )
    return summary(made, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
