"""Compare several trained models on the same images: one table, and which differences are chance.

The report's folder also gets a plot of accuracy against cost.
"""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import load_config
from fer_pipeline.data.outcomes import Split


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Arguments; those of the command line by default.
        program: Command that runs the job, for the usage message.
    """
    parser = cli.create_parser("compare", __doc__, program=program)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="RUN",
        help="folders of train jobs, or bundled models; at least two",
    )
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="the folder of a preprocess job"
    )
    parser.add_argument(
        "--split",
        default=str(Split.TEST),
        choices=[str(split) for split in Split],
        help="default: %(default)s",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the report's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing comparison")
    parser.add_argument(
        "--flip-tta",
        action="store_true",
        help="average over each image and its mirror image: --set inference.flip_tta=true",
    )
    arguments = parser.parse_args(argv)
    if len(arguments.models) < 2:
        parser.error("argument RUN: expected at least two models")
    return cli.run_job(_run, arguments)


def _run(arguments: argparse.Namespace) -> str:
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
