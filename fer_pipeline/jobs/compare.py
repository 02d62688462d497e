"""Compare the accuracy and cost of several trained models on the same images.

The report has a table of the models and tells which differences in accuracy may be due to chance.
The output folder also gets a plot of accuracy against cost.
"""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config
from fer_pipeline.data.outcomes import Split


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.
        program: Command that the user types to run the job, for the usage message.
    """
    parser = make_parser(program)
    arguments = parser.parse_args(argv)
    if len(arguments.models) < 2:
        parser.error("argument RUN: expected two or more models")
    return cli.run_job(_run, arguments, extra="train")


def make_parser(program: str = cli.SPARK_SUBMIT) -> argparse.ArgumentParser:
    """Return the parser of the job's options.

    Args:
        program: Command that the user types to run the job, for the usage message.
    """
    parser = cli.create_parser("compare", __doc__, program=program)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="RUN",
        help="two or more models: output folders of train jobs, or names of bundled models",
    )
    cli.add_report_options(parser, report="comparison")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Compare the models and return the report to print."""
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.pipelines.compare import compare, format_report

    overrides = ["inference.flip_tta=true"] if arguments.flip_tta else []
    comparison = compare(
        arguments.models,
        arguments.dataset,
        Split(arguments.split),
        arguments.output,
        load_config(arguments.config, [*arguments.set, *overrides]),
        overwrite=arguments.overwrite,
    )
    return format_report(comparison, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
