"""A dataset to a trained network: the model that validates best, its history and curves."""

import argparse
import sys

from fer_pipeline import cli, config


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("train", __doc__ or "")
    parser.add_argument("--dataset", required=True, metavar="DIR", help="what preprocess made")
    parser.add_argument("--output", required=True, metavar="RUN", help="the run's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.train import summary, train

    chosen = config.load(arguments.config, arguments.set)
    info = train(arguments.dataset, arguments.output, chosen, overwrite=arguments.overwrite)
    return summary(info, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
