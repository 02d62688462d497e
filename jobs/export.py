"""A trained run to a SavedModel and LiteRT files, each tried before it is published."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config
from fer_pipeline.publication import EXPORTED


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("export", __doc__ or "")
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN",
        help="a finished training run, or a model of the package",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the export's folder; default: RUN/export, where score finds it",
    )
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        help="the folder of a preprocess job: litert_int8 is calibrated and tried on faces of its"
        " train and validation splits",
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=list(EXPORTED),
        help="repeatable; default: " + ", ".join(EXPORTED) + " (this one with --dataset)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.export import default_forms, export, folder_of, summary

    made = export(
        arguments.model,
        arguments.output,
        arguments.format or default_forms(arguments.dataset),
        load_config(arguments.config, arguments.set),
        dataset=arguments.dataset,
        overwrite=arguments.overwrite,
    )
    return summary(made, folder_of(arguments.model, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
