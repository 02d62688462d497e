"""The command `fer-pipeline`, which runs the jobs of the installed package on this machine.

The module imports neither Spark nor TensorFlow, so that `--help` prints its text at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
from pathlib import Path

from fer_pipeline import __version__, jobs
from fer_pipeline.spark.local_mode import build_spark_environment

PROGRAM = "fer-pipeline"
JOBS_PATH = "jobs-path"

_EPILOG = f"""\
Spark runs on all cores of this machine; SPARK_DRIVER_MEMORY and SPARK_CONF_DIR change its settings,
PYSPARK_SUBMIT_ARGS replaces the options of {PROGRAM}. On a cluster, use Spark's own command:

    spark-submit --master spark://HOST:7077 "$({PROGRAM} {JOBS_PATH})/preprocess.py" ...
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command `fer-pipeline`: run a job, or print the help or the folder of the job files.

    Before a job runs, the environment variables for Spark on this machine are set.

    Args:
        argv: Command line arguments; `sys.argv[1:]` by default.

    Returns:
        The exit status.
    """
    # All arguments after the name of the job, also --help, are parsed by the job.
    arguments = _make_parser().parse_args(argv)
    if arguments.job == JOBS_PATH:
        print(get_jobs_folder())
        return 0
    os.environ.update(build_spark_environment(os.environ))
    job = importlib.import_module(f"{jobs.__name__}.{arguments.job}")
    return job.main(arguments.options, program=PROGRAM)


def get_jobs_folder() -> Path:
    """Return the folder of the Python files that `spark-submit` can run, one for each job."""
    return Path(jobs.__path__[0])


def describe_jobs() -> dict[str, str]:
    """Return the description of each job, by job name: the first line of its module's docstring."""
    names = [module.name for module in pkgutil.iter_modules(jobs.__path__)]
    modules = {name: importlib.import_module(f"{jobs.__name__}.{name}") for name in names}
    return {name: (module.__doc__ or "").partition("\n")[0] for name, module in modules.items()}


def _make_parser() -> argparse.ArgumentParser:
    """Return the parser of `fer-pipeline`, which leaves the options of a job unparsed."""
    descriptions = describe_jobs()
    descriptions[JOBS_PATH] = "Print the folder of the job files, for spark-submit."
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} JOB [JOB OPTIONS]",
        description=f"Facial emotion recognition, version {__version__}."
        f" {PROGRAM} JOB --help lists the options of a job.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    listing = parser.add_argument_group(
        "jobs", "\n".join(f"{name:<12}{text}" for name, text in descriptions.items())
    )
    listing.add_argument("job", choices=list(descriptions), metavar="JOB", help=argparse.SUPPRESS)
    listing.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
