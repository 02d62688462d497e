"""Faces (a folder of images, a CSV or a dataset) to an emotion and its probabilities for each."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import Config, load_config
from fer_pipeline.publication import SHIPPED


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("score", __doc__ or "")
    parser.add_argument(
        "--model",
        metavar="RUN",
        help=f"the folder of a train job, or a model of the package; default: its {SHIPPED}",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders of face images (with their subfolders), of any size from 8x8, FER2013-style"
        " CSV files, or one dataset; globs and any path that Spark reads",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder for the scores")
    parser.add_argument("--overwrite", action="store_true", help="replace scores that are there")
    keys = parser.add_argument_group("short for a key of the configuration")
    keys.add_argument(
        "--backend",
        choices=["auto", "keras", "litert"],
        help="inference.backend: what runs the model; litert: what export has put into RUN/export,"
        " in 8-bit integers where there is one, whatever that costs; auto: the fastest that answers"
        " as the model does",
    )
    keys.add_argument(
        "--min-confidence",
        metavar="P",
        help="inference.min_confidence: below this probability, from 0 to less than 1, the emotion"
        " is uncertain",
    )
    keys.add_argument(
        "--flip-tta",
        action="store_true",
        help="inference.flip_tta=true: average over each image and its mirror image",
    )
    return cli.run(_run, parser.parse_args(argv))


def _configuration(arguments: argparse.Namespace) -> Config:
    given = {
        "backend": arguments.backend,
        "min_confidence": arguments.min_confidence,
        "flip_tta": "true" if arguments.flip_tta else None,
    }
    short = [f"inference.{key}={value}" for key, value in given.items() if value is not None]
    options = {"inference.min_confidence": "--min-confidence"} if arguments.min_confidence else {}
    return load_config(arguments.config, [*arguments.set, *short], options)


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs neither Spark nor TensorFlow.
    from fer_pipeline.spark.session import spark_session
    from fer_pipeline.stages.score import score, summary

    chosen = _configuration(arguments)
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
