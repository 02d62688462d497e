"""The command line options, the log and the error messages that all jobs share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_pipeline.errors import FerError
from fer_pipeline.io import interrupts
from fer_pipeline.text import one_line

SPARK_SUBMIT = "spark-submit.sh"
"""The script that runs the jobs of a checkout."""

_QUIET_LOGGERS = (
    "py4j",
    "matplotlib",
    "PIL",
    "petastorm",
    "absl",
    "tensorflow",
    "h5py",
)
# 128 + SIGINT, as shells have it.
_INTERRUPTED_EXIT_CODE = 130


def create_parser(
    job: str, description: str | None, *, program: str = SPARK_SUBMIT
) -> argparse.ArgumentParser:
    """Return an argument parser with the options of every job.

    Args:
        job: Name of the job.
        description: Description of the job for the help text.
        program: Command that runs the job, for the usage message.
    """
    parser = argparse.ArgumentParser(
        prog=f"{program} {job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    common = parser.add_argument_group("options of every job")
    common.add_argument("--config", type=Path, metavar="FILE.yaml", help="the configuration")
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the configuration, such as image.size=28; repeatable",
    )
    common.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return parser


class _MovedOption(argparse.Action):
    """An option that ends the program with one line: it has become a job."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        parser.exit(2, f"{parser.prog}: error: {option_string} is now a job: {self.const}\n")


def refuse_moved_option(parser: argparse.ArgumentParser, option: str, command: str) -> None:
    """Make a parser end with one line that names the job which replaces an option.

    Args:
        parser: Parser of the job that had the option.
        option: Name of the option, such as `--summary`.
        command: The job and its arguments, such as `summarize --output PNG`.
    """
    parser.add_argument(
        option, nargs="*", action=_MovedOption, const=command, help=argparse.SUPPRESS
    )


def run_job(main: Callable[[argparse.Namespace], str], arguments: argparse.Namespace) -> int:
    """Run a job: log to stderr, print its report to stdout, print a user's error as one line.

    Args:
        main: Function that does the work and returns the report.
        arguments: Arguments from the parser of `create_parser`.

    Returns:
        The exit status.
    """
    _configure_logging(arguments.log_level)
    try:
        with interrupts.record_interrupts():
            report = main(arguments)
    except FerError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print("; ".join(["error: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return _INTERRUPTED_EXIT_CODE
    print(report, flush=True)
    return 0


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # py4j also logs the exceptions that it raises, with a traceback, and to the root logger.
    logging.getLogger().addFilter(lambda record: record.module != "java_gateway")
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
