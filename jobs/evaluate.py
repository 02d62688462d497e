"""A trained run and a split of a dataset to a report: per class, overall, and per image."""

import sys

from fer_pipeline import cli, config
from fer_pipeline.accounting import Split


def main(argv: list[str] | None = None) -> int:
    """Runs the job; returns its exit status."""
    parser = cli.parser("evaluate", __doc__ or "")
    parser.add_argument("--model", required=True, metavar="RUN", help="the folder of a train job")
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
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments) -> str:  # type: ignore[no-untyped-def]
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.evaluate import evaluate, summary

    result = evaluate(
        arguments.model,
        arguments.dataset,
        Split(arguments.split),
        arguments.output,
        config.load(arguments.config, arguments.set),
        overwrite=arguments.overwrite,
        layers=arguments.layers,
        image=arguments.image,
    )
    return summary(result, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
