"""A dataset to a trained network: the best weights, the history and its curves.

With --summary or --preview it shows what would be trained, and trains nothing. With --workers it
trains on the machines of a Spark cluster.
"""

import argparse
import sys
from pathlib import Path

from fer_pipeline import cli
from fer_pipeline.config import load_config


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("train", __doc__ or "")
    parser.add_argument("--dataset", metavar="DIR", help="what preprocess made")
    parser.add_argument("--output", metavar="RUN", help="the run's folder")
    begun = parser.add_mutually_exclusive_group()
    begun.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    begun.add_argument(
        "--resume",
        action="store_true",
        help="go on with an unfinished run that is there, with its configuration",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="train in N Spark tasks at once, each with its part of the rows; the dataset and the"
        " run are on disks that all machines share",
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--summary",
        nargs="?",
        const=Path("network.png"),
        type=Path,
        metavar="PNG",
        help="print the network's layers and, where graphviz is there, draw its graph"
        " (default: network.png)",
    )
    shown.add_argument(
        "--preview",
        nargs="?",
        const=Path("preview.png"),
        type=Path,
        metavar="PNG",
        help="draw training images and what augmentation makes of them (default: preview.png)",
    )
    arguments = parser.parse_args(argv)
    if not arguments.summary:
        needed = ("dataset",) if arguments.preview else ("dataset", "output")
        missing = [f"--{name}" for name in needed if getattr(arguments, name) is None]
        if missing:
            parser.error(f"the following arguments are required: {', '.join(missing)}")
    if arguments.workers is not None and arguments.workers < 1:
        parser.error(f"argument --workers: expected 1 or more, got {arguments.workers}")
    return cli.run(_show if arguments.summary or arguments.preview else _run, arguments)


def _show(arguments: argparse.Namespace) -> str:
    chosen = load_config(arguments.config, arguments.set)
    if arguments.summary:
        from fer_pipeline.stages.networks import summarize

        return summarize(chosen, arguments.dataset, arguments.summary)
    from fer_pipeline.stages.preview import preview

    return preview(arguments.dataset, chosen, arguments.preview)


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.train import configuration, summary, train

    chosen = configuration(
        arguments.output, arguments.config, arguments.set, resume=arguments.resume
    )
    run = (arguments.dataset, arguments.output, chosen)
    allowed = {"overwrite": arguments.overwrite, "resume": arguments.resume}
    if arguments.workers is None:
        info = train(*run, **allowed)
    else:
        from fer_pipeline.spark.session import spark_session
        from fer_pipeline.stages.train_together import train_together

        opened = spark_session("train", barrier=True)
        info = train_together(opened, arguments.workers, *run, **allowed)
    return summary(info, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
