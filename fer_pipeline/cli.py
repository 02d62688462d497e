"""The command line options, the logging and the error output that all jobs share."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import FerError
from fer_pipeline.extras import explain_missing_packages, require_package
from fer_pipeline.io import interrupts
from fer_pipeline.text import escape_unprintable, one_line, suggest_name

SPARK_SUBMIT = "spark-submit.sh"
"""Name of the script that runs the jobs from a checkout of the repository."""

_QUIET_LOGGERS = (
    "py4j",
    "matplotlib",
    "PIL",
    "petastorm",
    "absl",
    "tensorflow",
    "h5py",
)
_SPARK_OPTIONS = {
    "--archives",
    "--conf",
    "--deploy-mode",
    "--driver-java-options",
    "--driver-memory",
    "--executor-cores",
    "--executor-memory",
    "--files",
    "--jars",
    "--master",
    "--num-executors",
    "--packages",
    "--properties-file",
    "--py-files",
    "--total-executor-cores",
}
"""Options of spark-submit that users may write after the name of the job by mistake."""

# The shells' convention: 128 plus the number of the signal, which is 2 for SIGINT.
_INTERRUPTED_EXIT_CODE = 130


class _JobParser(argparse.ArgumentParser):
    """A parser whose error names an unknown option, even if a required one is missing as well."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Exit with an error line if an option is unknown; otherwise parse the arguments."""
        arguments = sys.argv[1:] if args is None else list(args)
        known_names = {
            name: action.help
            for action in self._actions
            for name in action.option_strings
            if name.startswith("--")
        }
        for argument in itertools.takewhile(lambda argument: argument != "--", arguments):
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in known_names:
                if name in _SPARK_OPTIONS:
                    self.error(
                        f"{name} is an option of spark-submit; write it before the name of the job"
                    )
                visible = [name for name, text in known_names.items() if text != argparse.SUPPRESS]
                self.error(f"unknown option {name}, {suggest_name(name, visible)}")
        return super().parse_known_args(arguments, namespace)


def create_parser(
    job: str, description: str | None, *, program: str = SPARK_SUBMIT
) -> argparse.ArgumentParser:
    """Return an argument parser with the options that all jobs share.

    Args:
        job: Name of the job.
        description: Description of the job for the help text.
        program: Command that precedes the job's name in the usage message, such as `fer-pipeline`.
    """
    parser = _JobParser(
        prog=f"{program} {job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    common = parser.add_argument_group("options of every job")
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="file with the configuration; keys that it does not contain have their defaults",
    )
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the configuration, such as image.size=28; repeatable",
    )
    common.add_argument(
        "--log-level",
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        help="lowest level of the messages in the log on stderr; default: %(default)s",
    )
    return parser


def add_report_options(parser: argparse.ArgumentParser, *, report: str) -> None:
    """Add the options of the jobs that measure models on a split of a dataset and write a report.

    The options are `--dataset`, `--split`, `--output`, `--overwrite` and `--flip-tta`.

    Args:
        parser: Parser of the job.
        report: Kind of report that the job writes, such as "evaluation", for the help text.
    """
    parser.add_argument(
        "--dataset", required=True, metavar="DIR", help="output folder of a preprocess job"
    )
    parser.add_argument(
        "--split",
        default=str(Split.TEST),
        choices=[str(split) for split in Split],
        help="split with the images to predict; default: %(default)s",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the report")
    parser.add_argument("--overwrite", action="store_true", help=f"replace an existing {report}")
    parser.add_argument(
        "--flip-tta",
        action="store_true",
        help="average the probabilities of each image and its mirror image; short for --set"
        " inference.flip_tta=true",
    )


class _MovedOption(argparse.Action):
    """A former option that has become a job; using it ends the program with one error line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print one error line, which names the new job, to stderr and exit with status 2."""
        parser.exit(2, f"{parser.prog}: error: {option_string} is now a job: {self.const}\n")


def add_moved_option(parser: argparse.ArgumentParser, option: str, command: str) -> None:
    """Add a hidden option whose only effect is to name the job that has replaced it.

    If the option is used, the program prints one error line with the command of that job and exits
    with status 2.

    Args:
        parser: Parser of the job that had the option.
        option: Name of the option, such as `--summary`.
        command: Name and arguments of the new job, such as `summarize --output PNG`.
    """
    parser.add_argument(
        option, nargs="*", action=_MovedOption, const=command, help=argparse.SUPPRESS
    )


_MAIN_PACKAGES = {"spark": "pyspark", "train": "tensorflow"}
"""Package by which the presence of an extra is recognised, by extra."""


def run_job(
    run: Callable[[argparse.Namespace], str],
    arguments: argparse.Namespace,
    *,
    extra: str | None = None,
) -> int:
    """Run a job and print its report to stdout.

    Log messages go to stderr. A `FerError`, which is an error that the user can correct, is printed
    to stderr as one line, and so is the error about a package that is not installed but that an
    extra of fer_pipeline installs. Other exceptions are raised.

    Args:
        run: Function that does the work and returns the report.
        arguments: Parsed arguments of a parser from `create_parser`.
        extra: Extra that the job needs, "spark" or "train". Its absence is reported first. The
            extra is also suggested if a package is missing that several extras install.

    Returns:
        The exit status: 0, the exit code of the `FerError`, or 130 after Ctrl-C.
    """
    _configure_logging(arguments.log_level)
    try:
        if extra is not None:
            require_package(_MAIN_PACKAGES[extra])
        with interrupts.record_interrupts(), explain_missing_packages(extra):
            report = run(arguments)
    except FerError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print("; ".join(["error: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return _INTERRUPTED_EXIT_CODE
    print(escape_unprintable(report), flush=True)
    return 0


class _LineFormatter(logging.Formatter):
    """A formatter that escapes the control characters in the messages of this package."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in logging
        """Return the line of a message, without control characters of file names."""
        if record.name.startswith("fer_pipeline"):
            record.message = escape_unprintable(record.message).replace("\n", "\\n")
        return super().formatMessage(record)


def _configure_logging(level: str) -> None:
    """Configure the logging: write messages of at least the given level to stderr.

    Libraries that log a lot, such as TensorFlow, log only warnings and errors. Exceptions that py4j
    logs are dropped, because py4j also raises them.

    Args:
        level: Lowest level to log, such as "INFO".
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    # py4j raises exceptions, and in addition logs them with a traceback to the root logger.
    logging.getLogger().addFilter(lambda record: record.module != "java_gateway")
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
