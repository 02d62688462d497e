"""A trained run and a split of a dataset to a report: per class, overall, and per image."""

import argparse
import sys

from fer_pipeline import cli
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config, load_config
from fer_pipeline.publication import SHIPPED


def main(argv: list[str] | None = None) -> int:
    """Runs the job; returns its exit status."""
    parser = cli.parser("evaluate", __doc__ or "")
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        metavar="RUN",
        help=f"the folder of a train job, or a model of the package; default: its {SHIPPED}",
    )
    models.add_argument(
        "--compare",
        nargs="+",
        metavar="RUN",
        help="or two and more of them: one table of all, and whether they differ by chance",
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
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an evaluation that is there"
    )
    parser.add_argument(
        "--flip-tta",
        action="store_true",
        help="average over each image and its mirror image: --set inference.flip_tta=true",
    )
    parser.add_argument(
        "--backend",
        choices=["keras", "litert"],
        help="what runs the model: --set inference.backend=...; litert: its export in 8-bit"
        " integers, where there is one; default: keras",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="draw the feature maps of these layers; default: convolutions and poolings",
    )
    parser.add_argument(
        "--image",
        type=int,
        metavar="ROW",
        help="draw them for this row of the split, from 0; default: the one best recognised",
    )
    arguments = parser.parse_args(argv)
    if arguments.compare is not None:
        if len(arguments.compare) < 2:
            parser.error("argument --compare: expected at least two runs")
        for name in ("layers", "image", "backend"):
            if getattr(arguments, name) not in ([], None):
                parser.error(f"argument --{name}: not allowed with argument --compare")
    return cli.run(_run if arguments.compare is None else _compare, arguments)


def _compare(arguments: argparse.Namespace) -> str:
    from fer_pipeline.stages.compare import compare, summary

    found = compare(
        arguments.compare,
        arguments.dataset,
        Split(arguments.split),
        arguments.output,
        _configuration(arguments),
        overwrite=arguments.overwrite,
    )
    return summary(found, arguments.output)


def _configuration(arguments: argparse.Namespace) -> Config:
    short = ["inference.flip_tta=true"] if arguments.flip_tta else []
    if arguments.backend:
        short.append(f"inference.backend={arguments.backend}")
    return load_config(arguments.config, [*arguments.set, *short])


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.evaluate import evaluate, summary

    result = evaluate(
        arguments.model,
        arguments.dataset,
        Split(arguments.split),
        arguments.output,
        _configuration(arguments),
        overwrite=arguments.overwrite,
        layers=arguments.layers,
        image=arguments.image,
    )
    return summary(result, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
