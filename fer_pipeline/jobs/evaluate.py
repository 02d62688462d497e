"""Evaluate a trained model on a split of a dataset: metrics, plots and predictions per image."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import Config, load_config
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io.output_kinds import DEFAULT_MODEL


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.
        program: Command that the user types to run the job, for the usage message.
    """
    arguments = make_parser(program).parse_args(argv)
    return cli.run_job(_run, arguments, extra="train")


def make_parser(program: str = cli.SPARK_SUBMIT) -> argparse.ArgumentParser:
    """Return the parser of the job's options.

    Args:
        program: Command that the user types to run the job, for the usage message.
    """
    parser = cli.create_parser("evaluate", __doc__, program=program)
    parser.add_argument(
        "--model",
        metavar="RUN",
        help=f"output folder of a train job, or name of a bundled model; default: {DEFAULT_MODEL}",
    )
    cli.add_report_options(parser, report="evaluation")
    parser.add_argument(
        "--backend",
        choices=["keras", "litert"],
        help="software that runs the model; short for --set inference.backend=...; litert runs the"
        " export of the model, in 8-bit integers if there is such an export; default: keras",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="plot the feature maps of these layers; default: convolution and pooling layers",
    )
    parser.add_argument(
        "--image",
        type=int,
        metavar="ROW",
        help="plot the feature maps of the image in this row of the split, from 0; default: the"
        " correctly classified image with the highest probability",
    )
    cli.add_moved_option(parser, "--compare", "compare RUN RUN ... --dataset DIR --output DIR")
    return parser


def _load_config(arguments: argparse.Namespace) -> Config:
    """Load the configuration; options such as `--backend` override its keys."""
    overrides = list(arguments.set)
    if arguments.flip_tta:
        overrides.append("inference.flip_tta=true")
    if arguments.backend:
        overrides.append(f"inference.backend={arguments.backend}")
    return load_config(arguments.config, overrides)


def _run(arguments: argparse.Namespace) -> str:
    """Evaluate the model and return the report to print."""
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.pipelines.evaluate import EvaluationRequest, evaluate, format_report

    evaluation = evaluate(
        EvaluationRequest(
            model=arguments.model,
            dataset=arguments.dataset,
            split=Split(arguments.split),
            output=arguments.output,
            config=_load_config(arguments),
            overwrite=arguments.overwrite,
            layers=arguments.layers,
            image=arguments.image,
        )
    )
    return format_report(evaluation, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
