"""Time until a job begins its work: the start of Spark and the import of TensorFlow.

All programs of a figure run in turn, so that a change of the machine's speed affects each of them.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import data
from benchmarks.figure import Figure
from fer_pipeline.data import synthetic
from fer_pipeline.spark.java import find_java_home
from fer_pipeline.spark.local_mode import build_spark_environment

_MEASUREMENTS = 3
_ROWS = 100
_FOLDER = data.WORK / "start"

_EMPTY_SESSION = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
spark.range(1).mapInArrow(lambda batches: batches, "id bigint").collect()
spark.stop()
"""
_PLAIN_IMPORT = "import tensorflow, keras"
_MISTAKE = ("train", "--dataset", "nope", "--output", "nope", "--set", "training.epoch=3")


@dataclass(frozen=True)
class Cost:
    """Time of a program, the smallest of all measurements.

    Attributes:
        wall: Wall time in seconds.
        processor: Processor time in seconds.
    """

    wall: float
    processor: float


def run() -> list[Figure]:
    """Measure the starts, and return all figures."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    csv, dataset = _FOLDER / "faces.csv", _FOLDER / "dataset"
    synthetic.write_csv(csv, _ROWS, seed=1)
    preprocess = ("preprocess", "--input", str(csv), "--output", str(dataset), "--overwrite")
    job, session = _measure(
        [_make_job_command(*preprocess), [sys.executable, "-c", _EMPTY_SESSION]]
    )
    ours, plain = _measure(
        [
            [sys.executable, "-c", f"import fer_pipeline.learning; {_PLAIN_IMPORT}"],
            [sys.executable, "-c", _PLAIN_IMPORT],
        ]
    )
    mistake, usage = _measure([_make_job_command(*_MISTAKE), _make_job_command("train", "--help")])
    shutil.rmtree(_FOLDER)
    return [
        Figure(
            f"start, preprocess of {_ROWS} rows, wall time / empty session's",
            f"{job.wall / session.wall:.2f} ({job.wall:.1f} s / {session.wall:.1f} s)",
            "at most 1.6",
        ),
        Figure(
            "start, import of TensorFlow, processor time / plain import's",
            f"{ours.processor / plain.processor:.2f}"
            f" ({ours.processor:.1f} s / {plain.processor:.1f} s)",
            "at most 1",
        ),
        Figure(
            "start, mistake in a key of train, wall time / --help's",
            f"{mistake.wall / usage.wall:.2f} ({mistake.wall:.2f} s / {usage.wall:.2f} s)",
        ),
    ]


def _make_job_command(*arguments: str) -> list[str]:
    """Return the command that runs a job."""
    return [sys.executable, "-m", "fer_pipeline", *arguments]


def _measure(commands: Sequence[Sequence[str]]) -> list[Cost]:
    """Run each command several times, in turn, and return its smallest times.

    Raises:
        SystemExit: A command failed without an error message for the user.
    """
    environment = {**os.environ, "JAVA_HOME": str(find_java_home())}
    environment |= build_spark_environment(environment)
    costs = [[_run(command, environment) for command in commands] for _ in range(_MEASUREMENTS)]
    return [
        Cost(min(cost.wall for cost in runs), min(cost.processor for cost in runs))
        for runs in zip(*costs, strict=True)
    ]


def _run(command: Sequence[str], environment: dict[str, str]) -> Cost:
    """Run a command, and return its times.

    Raises:
        SystemExit: The command failed without an error message for the user.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.run(
        command, env=environment, cwd=data.ROOT, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode and not process.stderr.startswith("error: "):
        raise SystemExit(process.stderr)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(seconds, user + system)
