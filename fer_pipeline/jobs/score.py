"""Predict the emotion of each face in a folder of images, a CSV file or a dataset."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fer_pipeline import cli
from fer_pipeline.config import Config, load_config
from fer_pipeline.faces.detectors import DETECTOR_NAMES
from fer_pipeline.io.output_kinds import DEFAULT_MODEL

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
    parser = cli.create_parser("score", __doc__, program=program)
    parser.add_argument(
        "--model",
        metavar="RUN",
        help=f"output folder of a train job, or name of a bundled model; default: {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders of photographs, clips or face crops (with their subfolders) of 8x8 pixels or"
        " larger, CSV files in the format of FER2013, archives of photographs, crops or CSV files,"
        " or one dataset; globs and URLs",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the scores")
    parser.add_argument(
        "--annotate",
        metavar="DIR",
        help="folder for copies of the images and clips with boxes, emotions and bars of the"
        " probabilities",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing scores")
    _add_inference_options(parser)
    return parser


def _add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that override keys in the section `inference` of the configuration."""
    group = parser.add_argument_group("short for a key of the configuration")
    group.add_argument(
        "--backend",
        choices=["auto", "keras", "litert"],
        help="inference.backend: software that runs the model; litert runs the export in"
        " RUN/export, in 8-bit integers if there is such an export, even if that costs accuracy;"
        " auto runs the fastest backend with the same predictions as Keras",
    )
    group.add_argument(
        "--faces",
        choices=["auto", "detect", "crop"],
        help="inference.faces: detect finds the faces of photographs, crop takes each image for one"
        " face, auto decides for each image",
    )
    group.add_argument(
        "--every",
        metavar="SECONDS",
        help="inference.every: time between the frames of clips that are read; without it, videos"
        " are not read, and an animated image is one image",
    )
    group.add_argument(
        "--format",
        choices=["parquet", "csv", "jsonl"],
        help="inference.format: csv and jsonl write all scores to one more file",
    )
    group.add_argument(
        "--detector",
        choices=DETECTOR_NAMES,
        help="faces.detector: networks that find faces",
    )
    group.add_argument(
        "--min-confidence",
        metavar="P",
        help="inference.min_confidence: probability, from 0 to less than 1, below which the emotion"
        " is reported as uncertain",
    )
    group.add_argument(
        "--flip-tta",
        action="store_true",
        help="inference.flip_tta=true: average the probabilities of each image and its mirror"
        " image",
    )


def _load_config(arguments: argparse.Namespace) -> Config:
    """Load the configuration; options such as `--backend` override its keys."""
    overrides = list(arguments.set)
    option_names = {}
    if arguments.backend is not None:
        overrides.append(f"inference.backend={arguments.backend}")
    if arguments.min_confidence is not None:
        overrides.append(f"inference.min_confidence={arguments.min_confidence}")
        option_names["inference.min_confidence"] = "--min-confidence"
    if arguments.faces is not None:
        overrides.append(f"inference.faces={arguments.faces}")
    if arguments.every is not None:
        overrides.append(f"inference.every={arguments.every}")
        option_names["inference.every"] = "--every"
    if arguments.format is not None:
        overrides.append(f"inference.format={arguments.format}")
    if arguments.detector is not None:
        overrides.append(f"faces.detector={arguments.detector}")
    if arguments.flip_tta:
        overrides.append("inference.flip_tta=true")
    return load_config(arguments.config, overrides, option_names)


def _run(arguments: argparse.Namespace) -> str:
    """Score the images and return the report to print."""
    # Imported here so that --help needs no extra.
    from fer_pipeline.pipelines.score import format_report, score

    scores = score(
        _open_session,
        arguments.model,
        arguments.input,
        arguments.output,
        _load_config(arguments),
        annotate=arguments.annotate,
        overwrite=arguments.overwrite,
    )
    return format_report(scores, arguments.output)


def _open_session() -> AbstractContextManager[SparkSession]:
    """Open the job's Spark session, after the checks that need no Spark."""
    from fer_pipeline.spark.session import spark_session

    return spark_session("score")


if __name__ == "__main__":
    sys.exit(main())
