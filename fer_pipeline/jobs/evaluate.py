"""Report how good a trained model is on a split of a dataset: per class, overall, per image."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.config import Config, load_config
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io.output_kinds import DEFAULT_MODEL


def main(argv: list[str] | None = None, *, program: str = cli.SPARK_SUBMIT) -> int:
    """Run the job and return the exit status.

    Args:
        argv: Arguments; those of the command line by default.
        program: Command that runs the job, for the usage message.
    """
    arguments = _make_parser(program).parse_args(argv)
    return cli.run_job(_run, arguments)


def _make_parser(program: str) -> argparse.ArgumentParser:
    parser = cli.create_parser("evaluate", __doc__, program=program)
    parser.add_argument(
        "--model",
        metavar="RUN",
        help=f"the folder of a train job, or a bundled model; default: {DEFAULT_MODEL}",
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
    parser.add_argument("--overwrite", action="store_true", help="replace an existing evaluation")
    parser.add_argument(
        "--flip-tta",
        action="store_true",
        help="average over each image and its mirror image: --set inference.flip_tta=true",
    )
    parser.add_argument(
        "--backend",
        choices=["keras", "litert"],
        help="what runs the model: --set inference.backend=...; litert: its export in 8-bit"
        " integers if there is one; default: keras",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="plot the feature maps of these layers; default: convolutions and poolings",
    )
    parser.add_argument(
        "--image",
        type=int,
        metavar="ROW",
        help="plot them for this row of the split, from 0; default: the best recognised image",
    )
    cli.refuse_moved_option(parser, "--compare", "compare RUN RUN ... --dataset DIR --output DIR")
    return parser


def _load_config(arguments: argparse.Namespace) -> Config:
    overrides = list(arguments.set)
    if arguments.flip_tta:
        overrides.append("inference.flip_tta=true")
    if arguments.backend:
        overrides.append(f"inference.backend={arguments.backend}")
    return load_config(arguments.config, overrides)


def _run(arguments: argparse.Namespace) -> str:
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
