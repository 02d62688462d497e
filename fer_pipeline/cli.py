"""What every job's command line has in common."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from fer_pipeline.errors import FerError
from fer_pipeline.io import interrupts

log = logging.getLogger("fer_pipeline")


def parser(job: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of every job.

    Args:
        job: The job's name, as `spark-submit.sh` takes it.
        description: What the job does.
    """
    made = argparse.ArgumentParser(
        prog=f"spark-submit.sh {job}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    common = made.add_argument_group("options of every job")
    common.add_argument("--config", type=Path, metavar="FILE.yaml", help="the configuration")
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="overrides one key of it, such as image.size=28; repeatable",
    )
    common.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return made


def run(main: Callable[[argparse.Namespace], str], arguments: argparse.Namespace) -> int:
    """Runs a job: its log on stderr, its result on stdout, an error of the user's as one line.

    Args:
        main: The job; returns its result as text.
        arguments: What `parser` parsed.

    Returns:
        The exit status.
    """
    logging.basicConfig(
        level=arguments.log_level,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # py4j logs what it raises too, with a traceback, and as nobody: to the root.
    logging.getLogger().addFilter(lambda record: record.module != "java_gateway")
    for noisy in ("py4j", "matplotlib", "PIL", "petastorm", "absl", "tensorflow", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with interrupts.record_interrupts():
            result = main(arguments)
    except FerError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stopped:
        print("; ".join(["error: interrupted", *map(str, stopped.args)]), file=sys.stderr)
        return 130
    print(result, flush=True)
    return 0
