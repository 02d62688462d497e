"""Functions run by several processes at the same time, as the tasks of a Spark barrier stage.

If one process is lost, all of them end and start again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from fer_pipeline.errors import ClusterError, WorkerLostError

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 4
_CONNECT_TIMEOUT = 20  # seconds

_TOO_FEW_SLOTS = "requires more slots than the total number of slots"
_DYNAMIC_ALLOCATION = "does not support dynamic resource allocation"
_WORKER_LOST = (
    r"Python worker exited unexpectedly|ExecutorLostFailure[^\n]*|WorkerLostError: [^\n]*"
)
"""Messages of Spark about a barrier stage that failed."""


@dataclass(frozen=True)
class BarrierTask:
    """One of the processes, and its connection to the others.

    Attributes:
        number: Index of this process, from 0.
        addresses: `host:port` of each process, by index. The port is reserved for that process,
            and nothing listens on it yet.
        cores: Processor cores of this process.
        all_gather: Sends a text to all processes, and returns the texts of all, by index.
    """

    number: int
    addresses: Sequence[str]
    cores: int
    all_gather: Callable[[str], list[str]]


def run_barrier_stage(
    session: SparkSession,
    count: int,
    function: Callable[[BarrierTask], None],
    progress: Callable[[], int] = lambda: 0,
) -> None:
    """Run a function in several processes at once.

    Each process sees only the GPU that Spark assigned to its task.

    Args:
        session: A session opened with `barrier=True`.
        count: Number of processes.
        function: What each process calls; must be picklable.
        progress: Returns the amount of work finished so far. Retries are unlimited while it grows
            between failures.

    Raises:
        ClusterError: Spark has too few slots, a process cannot reach another, or a process has more
            than one GPU.
        WorkerLostError: Processes were lost four times without progress in between.
    """
    stage = session.sparkContext.parallelize(range(count), count).barrier()

    def run_task(_: Iterable[int]) -> Iterator[int]:
        _run_in_task(function)
        return iter(())

    # Spark itself never retries a stage whose results are returned to the driver.
    attempt = 0
    last_progress = progress()
    log.info("requesting %s concurrent Spark tasks", count)
    while True:
        attempt += 1
        try:
            stage.mapPartitions(run_task).collect()
            return
        except Py4JJavaError as error:
            failure = _worker_failure(str(error), count)
            if failure is None:
                raise
            current_progress = progress()
            if current_progress > last_progress:
                attempt = 1
                last_progress = current_progress
            if attempt == _MAX_ATTEMPTS:
                raise WorkerLostError(
                    f"workers were lost {attempt} times without a finished round in between; the"
                    f" last failure: {failure}. See what the executors wrote to stderr, and check"
                    " that the workers reach each other's ports; --resume continues from the last"
                    " checkpoint"
                ) from error
            log.warning("a worker was lost (%s); all continue from the last checkpoint", failure)


def _worker_failure(text: str, count: int) -> str | None:
    """Return how a process was lost according to Spark's message, or None if none was lost.

    Raises:
        ClusterError: The stage cannot run on this cluster.
    """
    if _TOO_FEW_SLOTS in text:
        raise ClusterError(
            f"{count} workers have to run at the same time, and the cluster has fewer slots: use"
            " fewer workers, or give Spark more executors (each needs spark.executor.cores and"
            " spark.executor.memory free on a machine), or more time to start them"
            " (spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures); --resume continues"
            " from the last checkpoint, if there is one"
        )
    if _DYNAMIC_ALLOCATION in text:
        raise ClusterError(
            "workers that train together need a fixed number of executors; set"
            " spark.dynamicAllocation.enabled=false and --num-executors"
        )
    match = re.search(_WORKER_LOST, text)
    return match[0].strip()[:160] if match else None


def _run_in_task(function: Callable[[BarrierTask], None]) -> None:
    """Check that the processes reach each other, then call the function in this one."""
    task = BarrierTaskContext.get()
    number = task.partitionId()
    os.environ["CUDA_VISIBLE_DEVICES"] = _visible_gpu(task)
    # Use the host names by which Spark itself reaches the machines.
    hosts = [task_info.address.rpartition(":")[0] for task_info in task.getTaskInfos()]
    with _reserve_port() as port:
        with _listen(port):
            addresses = task.allGather(f"{hosts[number]}:{port}")
            problems = task.allGather(_connection_problem(number, addresses))
        problem = next(filter(None, problems), None)
        if problem:
            raise ClusterError(problem)
        # Start the function in all processes at the same time.
        task.barrier()
        function(BarrierTask(number, addresses, task.cpus(), task.allGather))


def _visible_gpu(task: BarrierTaskContext) -> str:
    """Return the task's GPU in the format of CUDA_VISIBLE_DEVICES; -1 means no GPU.

    Raises:
        ClusterError: Spark assigned more than one.
    """
    gpus = task.resources().get("gpu")
    if not gpus:
        return "-1"
    if len(gpus.addresses) > 1:
        raise ClusterError(
            f"a worker trains on one GPU, but Spark assigned {len(gpus.addresses)} to it; set"
            " spark.task.resource.gpu.amount=1, and use more --workers"
        )
    return str(gpus.addresses[0])


@contextlib.contextmanager
def _reserve_port() -> Iterator[int]:
    """Reserve a free port of this machine within the block.

    A socket is bound to it and does not listen. Another program can bind the port only with
    SO_REUSEPORT, and as the same user.
    """
    with _open_socket() as reserved_socket:
        reserved_socket.bind(("", 0))
        yield reserved_socket.getsockname()[1]


@contextlib.contextmanager
def _listen(port: int) -> Iterator[None]:
    with _open_socket() as listener:
        listener.bind(("", port))
        listener.listen()
        yield


def _open_socket() -> socket.socket:
    new_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return new_socket


def _connection_problem(number: int, addresses: Sequence[str]) -> str:
    """Try to connect to all processes; return why one is unreachable, or an empty string."""
    for peer, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
        except OSError as error:
            return (
                f"worker {number} ({addresses[number]}) cannot reach worker {peer} ({address}):"
                f" {error.strerror or error}; open all ports between the workers' machines"
            )
    return ""
