"""Submission of jobs to a standalone Spark cluster with two workers of one core."""

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
    """Time and memory of a job.

    Attributes:
        seconds: Wall time in seconds.
        peaks: Largest resident set size of a process of each kind, in bytes.
    """

    seconds: float
    peaks: dict[str, int]


@contextlib.contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Run a cluster while the block runs; its folder `FOLDER` is deleted afterwards."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    cluster = Cluster(FOLDER / "spark", workers=CORES, memory="2g")
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(FOLDER)


def submit_job(cluster: Cluster, *arguments: str) -> JobCost:
    """Run a job on a cluster and wait for its end.

    The driver and the executors have heaps of 512 MB; Spark does not start with less than 450 MB.

    Args:
        cluster: Cluster to run the job on.
        arguments: Arguments of `spark-submit.sh`.

    Returns:
        The time and the memory of the job.

    Raises:
        SystemExit: The job failed.
    """
    heaps = ("--driver-memory", "512m", "--conf", "spark.executor.memory=512m")
    command = [str(data.ROOT / "spark-submit.sh"), *cluster.options, *heaps, *arguments]
    start = time.perf_counter()
    with MemoryMonitor(cluster.ids) as monitor:
        process = subprocess.run(command, cwd=FOLDER, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(process.stderr)
    return JobCost(seconds, monitor.peaks)
