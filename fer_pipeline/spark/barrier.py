"""Running of a function in several processes at once, as the tasks of a Spark barrier stage.

If one process is lost, Spark stops all processes of the stage, and all of them are started again.
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
"""Pattern of Spark's messages about a lost process of a barrier stage."""


@dataclass(frozen=True)
class BarrierTask:
    """One process of a barrier stage, and its connection to the other processes.

    Attributes:
        number: Index of this process, from 0.
        addresses: `host:port` of each process, by index. The port is reserved for the process, and
            no program listens on it yet.
        cores: Number of processor cores of this process.
        all_gather: Function that sends a text to all processes, and returns the texts of all
            processes by index.
    """

    number: int
    addresses: Sequence[str]
    cores: int
    all_gather: Callable[[str], list[str]]


def run_barrier_stage(
    session: SparkSession,
    process_count: int,
    function: Callable[[BarrierTask], None],
    progress: Callable[[], int] = lambda: 0,
) -> None:
    """Run a function in several processes at once, as the tasks of a Spark barrier stage.

    Each process sees only the GPU that Spark assigned to its task. If a process is lost, the stage
    is run again, until it has failed four times without progress in between.

    Args:
        session: Session that was opened by `spark_session` with `barrier=True`.
        process_count: Number of processes.
        function: Function that each process calls with its task; it must be picklable.
        progress: Function that returns the amount of finished work, in any unit. If the amount has
            grown since the last failure, the count of failures starts again.

    Raises:
        ClusterError: Spark has too few slots or allocates executors dynamically, a process cannot
            connect to another process, or a process has more than one GPU.
        WorkerLostError: Processes were lost four times without progress in between.
        Py4JJavaError: The stage failed for a different reason.
    """
    stage = session.sparkContext.parallelize(range(process_count), process_count).barrier()

    def run_task(_: Iterable[int]) -> Iterator[int]:
        """Call the function in one task of the stage; return an empty iterator to Spark."""
        _prepare_and_run_task(function)
        return iter(())

    # Spark itself never retries a barrier stage that returns its results to the driver.
    attempt = 0
    last_progress = progress()
    log.info("requesting %s concurrent Spark tasks", process_count)
    while True:
        attempt += 1
        try:
            stage.mapPartitions(run_task).collect()
            return
        except Py4JJavaError as error:
            failure = _parse_worker_failure(str(error), process_count)
            if failure is None:
                raise
            current_progress = progress()
            if current_progress > last_progress:
                attempt = 1
                last_progress = current_progress
            if attempt == _MAX_ATTEMPTS:
                raise WorkerLostError(
                    f"workers were lost {attempt} times, and no validation was completed in"
                    f" between; the last failure: {failure}. See what the executors wrote to"
                    " stderr, and check that the workers reach each other's ports; --resume"
                    " continues from the last checkpoint"
                ) from error
            log.warning("a worker was lost (%s); all continue from the last checkpoint", failure)


def _parse_worker_failure(message: str, process_count: int) -> str | None:
    """Extract from Spark's error message how a process was lost.

    Args:
        message: Spark's error message.
        process_count: Number of processes in the stage, for the text of the ClusterError.

    Returns:
        The relevant part of the message; None if the stage failed for a reason other than a lost
        process.

    Raises:
        ClusterError: Spark has too few slots for the stage, or dynamic allocation of executors is
            enabled. The stage cannot run on such a cluster.
    """
    if _TOO_FEW_SLOTS in message:
        raise ClusterError(
            f"{process_count} workers have to run at the same time, and the cluster has fewer"
            " slots: use fewer workers, or give Spark more executors (each needs"
            " spark.executor.cores and spark.executor.memory free on a machine), or more time to"
            " start them (spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures); --resume"
            " continues from the last checkpoint, if there is one"
        )
    if _DYNAMIC_ALLOCATION in message:
        raise ClusterError(
            "workers that train together need a fixed number of executors; set"
            " spark.dynamicAllocation.enabled=false and, on YARN or Kubernetes, --num-executors"
        )
    match = re.search(_WORKER_LOST, message)
    return match[0].strip()[:160] if match else None


def _prepare_and_run_task(function: Callable[[BarrierTask], None]) -> None:
    """Prepare this process of a barrier stage, then call the function in it.

    The preparation limits the process to the GPU of its task (CUDA_VISIBLE_DEVICES), reserves a
    port, and checks that all processes can connect to each other.

    Args:
        function: Function to call with the `BarrierTask` of this process.

    Raises:
        ClusterError: A process cannot connect to another one, or this process has several GPUs.
    """
    task = BarrierTaskContext.get()
    number = task.partitionId()
    os.environ["CUDA_VISIBLE_DEVICES"] = _find_assigned_gpu(task)
    # Use the host names by which Spark itself reaches the machines.
    hosts = [task_info.address.rpartition(":")[0] for task_info in task.getTaskInfos()]
    with _reserve_port() as port:
        with _listen(port):
            addresses = task.allGather(f"{hosts[number]}:{port}")
            problems = task.allGather(_find_connection_failure(number, addresses))
        problem = next(filter(None, problems), None)
        if problem:
            raise ClusterError(problem)
        # Start the function in all processes at the same time.
        task.barrier()
        function(BarrierTask(number, addresses, task.cpus(), task.allGather))


def _find_assigned_gpu(task: BarrierTaskContext) -> str:
    """Return the task's GPU in the format of CUDA_VISIBLE_DEVICES; -1 means no GPU.

    Raises:
        ClusterError: Spark assigned more than one GPU to the task.
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
    """Reserve a free port of this machine while the context is active.

    The port is reserved by a socket that is bound to it but does not listen. Other programs can
    bind the port only with SO_REUSEPORT and as the same user.
    """
    with _open_socket() as reserved_socket:
        reserved_socket.bind(("", 0))
        yield reserved_socket.getsockname()[1]


@contextlib.contextmanager
def _listen(port: int) -> Iterator[None]:
    """Listen on a port of this machine while the context is active."""
    with _open_socket() as listener:
        listener.bind(("", port))
        listener.listen()
        yield


def _open_socket() -> socket.socket:
    """Create a TCP socket that can share its port with other sockets of the same user."""
    new_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return new_socket


def _find_connection_failure(index: int, addresses: Sequence[str]) -> str:
    """Try to connect to each process of the stage, and describe the first failure.

    Args:
        index: Index of this process.
        addresses: `host:port` of each process, by index.

    Returns:
        A message for the user; empty if this process can connect to all processes.
    """
    for peer, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
        except OSError as error:
            return (
                f"worker {index} ({addresses[index]}) cannot reach worker {peer} ({address}):"
                f" {error.strerror or error}; open all ports between the workers' machines"
            )
    return ""
