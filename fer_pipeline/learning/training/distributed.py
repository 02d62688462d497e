"""Synchronous data parallelism: several processes that train one network together.

Each worker computes the gradient of its part of a batch. The gradients are summed over all workers
before each step, so that all copies of the network stay equal. The communication is that of
TensorFlow's MultiWorkerMirroredStrategy.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.errors import WorkerLostError
from fer_pipeline.learning.types import Tensor
from fer_pipeline.text import one_line

_CONNECT_SECONDS = 120
"""Limit for all workers to connect after Spark has started each of them."""

_COLLECTIVE_SECONDS = 1800
"""Limit of a collective operation: some steps of a large network on large batches, while the chief
may still be writing a checkpoint."""

_REPORT_SECONDS = 3.0
"""Delay before a lost worker is reported, so that a worker with an error of its own reports first.
"""

_REASON_CHARACTERS = 200

_LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""TensorFlow's errors after another worker has ended. All others are errors of this worker."""


@dataclass(frozen=True)
class WorkerContext:
    """The rank of this process among the workers of a run.

    Attributes:
        rank: Number of this worker, from 0. Worker 0 is the chief.
        world_size: Number of workers.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes files."""
        return self.rank == 0


SINGLE_WORKER = WorkerContext()
"""The context of a process that trains alone."""


def init_distributed(addresses: Sequence[str], rank: int, cores: int) -> None:
    """Connect to the other workers and make their strategy TensorFlow's default.

    If not all workers connect in time, the process exits, and Spark restarts all of them.

    Args:
        addresses: `host:port` of each worker; only TensorFlow listens there.
        rank: Rank of this process, a position in `addresses`.
        cores: Number of processor cores that this process may use.
    """
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    cluster = {"cluster": {"worker": [*addresses]}, "task": {"type": "worker", "index": rank}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    # The port may be reserved by a socket that does not listen, so that no other process takes it.
    os.environ["TF_GRPC_REUSE_PORT"] = "true"
    ring = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    # TensorFlow waits for an hour, whatever its settings, and blocks all Python threads meanwhile.
    with _exit_after(_CONNECT_SECONDS):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    tf.distribute.experimental_set_strategy(strategy)


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Exit the process if the context, which needs the other workers, takes too long.

    `worker_failures` detects a worker that died within seconds. The watchdog detects one that is
    alive but makes no progress. TensorFlow's own timeout would keep a thread for each collective
    operation until it expires, two a step, until the machine has no threads left.
    """
    with contextlib.nullcontext() if is_single_worker() else _exit_after(_COLLECTIVE_SECONDS):
        yield


@contextlib.contextmanager
def _exit_after(seconds: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def worker_failures(rank: int) -> Iterator[None]:
    """Translate TensorFlow's errors about lost workers within the context.

    Args:
        rank: Rank of this process.

    Raises:
        WorkerLostError: Another worker does not answer any more.
    """
    try:
        yield
    except _LOST_WORKER_ERRORS as error:
        time.sleep(_REPORT_SECONDS)
        reason = one_line(error.message)[:_REASON_CHARACTERS]
        raise WorkerLostError(f"worker {rank} lost contact to another worker: {reason}") from error


def enable_sync_batch_norm(network: keras.Model) -> None:
    """Make each BatchNormalization compute its statistics over the parts of all workers."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def scale_loss(loss: Tensor, rows: Tensor) -> Tensor:
    """Scale a worker's mean loss so that `all_reduce_mean` gives the gradient of the whole batch.

    Synchronized BatchNormalization sums the gradients of all workers in its backward pass, so the
    number of rows must be a factor of the loss before that. Call it in a replica's step.

    Args:
        loss: Mean loss over the worker's rows.
        rows: Number of these rows, float32.
    """
    return loss if is_single_worker() else loss * rows


def all_reduce_mean(scaled: Sequence[Tensor | None], rows: Tensor) -> list[Tensor | None]:
    """Return the means over the rows of all workers, in one message and in a replica's step.

    Args:
        scaled: Sums over the worker's rows, float32, as of `scale_loss`; None remains None.
        rows: Number of these rows, float32.
    """
    if is_single_worker():
        return [*scaled]
    tensors = [tensor for tensor in scaled if tensor is not None]
    *sums, count = _sum_in_replica([*tensors, rows])
    means = iter([total / count for total in sums])
    return [None if tensor is None else next(means) for tensor in scaled]


def is_single_worker() -> bool:
    """Return whether this process trains alone, according to TensorFlow's current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync == 1


def _sum_in_replica(tensors: Any) -> Any:
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def all_reduce_sum(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Return the sums of NumPy arrays over all workers; every worker must call it.

    Sums of integers are exact up to 2^53.
    """
    if is_single_worker():
        return [*arrays]
    # One message for all arrays.
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    with watchdog():
        sums = _sum_in_step(tf.constant(flat)).numpy()
    parts = np.split(sums, np.cumsum([np.size(array) for array in arrays])[:-1])
    return [
        part.reshape(np.shape(array)).astype(np.asarray(array).dtype)
        for part, array in zip(parts, arrays, strict=True)
    ]


@tf.function(reduce_retracing=True)
def _sum_in_step(flat: Tensor) -> Tensor:
    # tf.identity: a tensor from outside of the step is on no device, and is refused.
    return tf.distribute.get_strategy().run(lambda: _sum_in_replica(tf.identity(flat)))
