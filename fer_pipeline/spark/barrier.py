"""Processes that have to run at the same time: the tasks of a barrier stage, which know each other.

One that is lost ends all of them, and all begin again.
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

_ATTEMPTS = 4
_SECONDS_TO_REACH = 20
_TOO_FEW = "requires more slots than the total number of slots"
_DYNAMIC = "does not support dynamic resource allocation"
_LOST = r"Python worker exited unexpectedly|ExecutorLostFailure[^\n]*|WorkerLostError: [^\n]*"


@dataclass(frozen=True)
class BarrierTask:
    """What one of the processes knows.

    Attributes:
        number: Which one it is, from 0.
        addresses: `host:port` of each. Nobody listens there yet, and nobody else can.
        cores: How many processor cores it was given.
        all_gather: Gives each what all of them gave, in the order of their numbers.
    """

    number: int
    addresses: Sequence[str]
    cores: int
    all_gather: Callable[[str], list[str]]


def run(
    session: SparkSession,
    count: int,
    function: Callable[[BarrierTask], None],
    progress: Callable[[], int] = lambda: 0,
) -> None:
    """Runs a function in so many processes at once.

    The GPU that Spark has assigned to a task is the only one that its process sees.

    Args:
        session: One for barriers.
        count: How many.
        function: Can be pickled.
        progress: How much the processes have done by now: as long as that grows from one loss to
            the next, they may go on being lost.

    Raises:
        ClusterError: There are fewer slots, a process cannot reach another, or one has more GPUs
            than it can use.
        WorkerLostError: Processes were lost too often in a row.
    """
    stage = session.sparkContext.parallelize(range(count), count).barrier()

    def task(_: Iterable[int]) -> Iterator[int]:
        _perform(function)
        return iter(())

    # Spark does not begin a stage again of which it would return the results.
    attempt, done = 0, progress()
    log.info("asks Spark for %s tasks at the same time", count)
    while True:
        attempt += 1
        try:
            stage.mapPartitions(task).collect()
            return
        except Py4JJavaError as error:
            lost = _lost(str(error), count)
            if lost is None:
                raise
            now = progress()
            if now > done:
                attempt, done = 1, now
            if attempt == _ATTEMPTS:
                raise WorkerLostError(
                    f"workers were lost {attempt} times without a round in between, the last time"
                    f" so: {lost}; what the executors wrote to stderr says more (workers need each"
                    " other's ports); --resume goes on from the last checkpoint"
                ) from error
            log.warning("a worker was lost (%s); all go on from the last checkpoint", lost)


def _lost(text: str, count: int) -> str | None:
    """How a process was lost, if that is what Spark says.

    Raises:
        ClusterError: The stage cannot run as it is.
    """
    if _TOO_FEW in text:
        raise ClusterError(
            f"{count} workers have to run at the same time, and the cluster has fewer slots: take"
            " fewer, or give Spark more executors (each needs spark.executor.cores and"
            " spark.executor.memory free on a machine), or time to start them"
            " (spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures); --resume goes on from"
            " the last checkpoint, if there is one"
        )
    if _DYNAMIC in text:
        raise ClusterError(
            "workers that train together need a fixed number of executors; set"
            " spark.dynamicAllocation.enabled=false and --num-executors"
        )
    found = re.search(_LOST, text)
    return found[0].strip()[:160] if found else None


def _perform(function: Callable[[BarrierTask], None]) -> None:
    task = BarrierTaskContext.get()
    number = task.partitionId()
    os.environ["CUDA_VISIBLE_DEVICES"] = _gpu(task)
    # The machines by the names that Spark itself reaches them by.
    hosts = [info.address.rpartition(":")[0] for info in task.getTaskInfos()]
    with _claimed_port() as port:
        with _listening(port):
            addresses = task.allGather(f"{hosts[number]}:{port}")
            failures = task.allGather(_unreachable(number, addresses))
        told = next(filter(None, failures), None)
        if told:
            raise ClusterError(told)
        # What the processes do here they do at the same time, from here on.
        task.barrier()
        function(BarrierTask(number, addresses, task.cpus(), task.allGather))


def _gpu(task: BarrierTaskContext) -> str:
    """The GPU that Spark has assigned, as CUDA wants it: -1 is none."""
    given = task.resources().get("gpu")
    if not given:
        return "-1"
    if len(given.addresses) > 1:
        raise ClusterError(
            f"a worker trains on one GPU, Spark gave it {len(given.addresses)}; set"
            " spark.task.resource.gpu.amount=1, and take more --workers"
        )
    return str(given.addresses[0])


@contextlib.contextmanager
def _claimed_port() -> Iterator[int]:
    """A port of this machine that is nobody else's within.

    It is held by a socket that does not listen. A program that binds it too has to ask for that
    (SO_REUSEPORT), and be of the same user.
    """
    with _socket() as held:
        held.bind(("", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def _listening(port: int) -> Iterator[None]:
    with _socket() as listener:
        listener.bind(("", port))
        listener.listen()
        yield


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def _unreachable(number: int, addresses: Sequence[str]) -> str:
    """What is wrong with the way from one process to the others; empty where nothing is."""
    for other, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _SECONDS_TO_REACH).close()
        except OSError as error:
            return (
                f"worker {number} ({addresses[number]}) cannot reach worker {other} ({address}):"
                f" {error.strerror or error}; workers need every port between their machines"
            )
    return ""
