"""Jobs on a standalone cluster: a master and two workers of one core, on this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import data
from benchmarks.memory import MemoryMonitor
from tests.helpers.standalone_cluster import Cluster

CORES = 2
FOLDER = data.WORK / "cluster"


@dataclass(frozen=True)
class JobCost:
    """The time and the memory of one job.

    Attributes:
        seconds: Wall time from start to end.
        peaks: See `memory.MemoryMonitor`.
    """

    seconds: float
    peaks: dict[str, int]


@contextlib.contextmanager
def start_cluster() -> Iterator[Cluster]:
    """Start a cluster, in a folder that is deleted when the block ends."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    cluster = Cluster(FOLDER / "spark", workers=CORES, memory="2g")
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(FOLDER)


def submit(cluster: Cluster, *arguments: str) -> JobCost:
    """Run a job, with heaps of 512 MB: Spark does not start with less than 450 MB."""
    heaps = ("--driver-memory", "512m", "--conf", "spark.executor.memory=512m")
    command = [str(data.ROOT / "spark-submit.sh"), *cluster.options, *heaps, *arguments]
    start = time.perf_counter()
    with MemoryMonitor(cluster.ids) as monitor:
        process = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.stderr)
    return JobCost(seconds, monitor.peaks)
