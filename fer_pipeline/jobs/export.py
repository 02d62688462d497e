"""Export a trained model as a SavedModel and as LiteRT files, and verify each exported model."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config
from fer_pipeline.io.output_kinds import EXPORT_FILES


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
    parser = cli.create_parser("export", __doc__, program=program)
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN",
        help="output folder of a train job, or name of a bundled model",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for the export; default: RUN/export, in which score looks for it",
    )
    parser.add_argument(
        "--dataset",
        metavar="DIR",
        help="output folder of a preprocess job; litert_int8 is calibrated and verified on images"
        " of its train and validation splits",
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=list(EXPORT_FILES),
        help="format of the export; repeatable; default:"
        f" {', '.join(EXPORT_FILES)} (the last one only with --dataset)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing export")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Export the model and return the report to print."""
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.pipelines.export import (
        export,
        format_report,
        list_default_formats,
        resolve_export_path,
    )

    export_manifest = export(
        arguments.model,
        arguments.output,
        arguments.format or list_default_formats(arguments.dataset),
        load_config(arguments.config, arguments.set),
        dataset=arguments.dataset,
        overwrite=arguments.overwrite,
    )
    return format_report(export_manifest, resolve_export_path(arguments.model, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
