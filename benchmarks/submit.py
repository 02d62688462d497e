"""Jobs on a standalone cluster: a master and two workers of one core, on this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import data
from benchmarks.memory import Watch
from tests.helpers.standalone_cluster import Cluster

CORES = 2
FOLDER = data.WORK / "cluster"


@dataclass(frozen=True)
class Measured:
    """What a job took.

    Attributes:
        seconds: From start to end, of wall time.
        peaks: See `memory.Watch`.
    """

    seconds: float
    peaks: dict[str, int]


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster, in a folder that is deleted when it ends."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    made = Cluster(FOLDER / "spark", workers=CORES, memory="2g")
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(FOLDER)


def submit(made: Cluster, *arguments: str) -> Measured:
    """Runs a job, with heaps of 512 MB: Spark starts with no less than 450."""
    heaps = ("--driver-memory", "512m", "--conf", "spark.executor.memory=512m")
    command = [str(data.ROOT / "spark-submit.sh"), *made.options, *heaps, *arguments]
    began = time.perf_counter()
    with Watch(made.ids) as watch:
        done = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    return Measured(seconds, watch.peaks)
