"""A trained run to a SavedModel and a LiteRT file, each tried before it is published."""

import argparse
import sys

from fer_pipeline import cli, config
from fer_pipeline.publication import EXPORTED


def main(argv: list[str] | None = None) -> int:
    """Parses the arguments and runs the job.

    Args:
        argv: The arguments; those of the command line by default.

    Returns:
        The exit status.
    """
    parser = cli.parser("export", __doc__ or "")
    parser.add_argument("--model", required=True, metavar="RUN", help="a finished training run")
    parser.add_argument("--output", required=True, metavar="DIR", help="the export's folder")
    parser.add_argument(
        "--format",
        action="append",
        choices=list(EXPORTED),
        help="repeatable; default: " + ", ".join(EXPORTED),
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")
    return cli.run(_run, parser.parse_args(argv))


def _run(arguments: argparse.Namespace) -> str:
    # Imported here so that --help needs no TensorFlow.
    from fer_pipeline.stages.export import export, summary

    made = export(
        arguments.model,
        arguments.output,
        arguments.format or list(EXPORTED),
        config.load(arguments.config, arguments.set),
        overwrite=arguments.overwrite,
    )
    return summary(made, arguments.output)


if __name__ == "__main__":
    sys.exit(main())
