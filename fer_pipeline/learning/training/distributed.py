"""Synchronous data parallelism: several processes that train one network together.

Each worker computes the gradient of its part of a batch. The gradients are summed over all workers
before the weights are updated, so that all copies of the network stay equal. TensorFlow's
MultiWorkerMirroredStrategy does the communication.
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
"""Time limit for all workers to connect, after Spark has started each of them."""

_COLLECTIVE_SECONDS = 1800
"""Time limit of a collective operation. It suffices for several steps of a large network on large
batches, even while the chief is still writing a checkpoint."""

_REPORT_SECONDS = 3.0
"""Delay before a lost worker is reported. A worker that ended with its own error reports first."""

_MAX_REASON_CHARACTERS = 200

_LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
"""Errors that TensorFlow raises if a different worker has ended. All other errors are this
worker's own."""


@dataclass(frozen=True)
class WorkerContext:
    """The rank of this process and the number of workers in a training run.

    Attributes:
        rank: Index of this worker, from 0. Worker 0 is the chief, which writes the files.
        world_size: Number of workers.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_chief(self) -> bool:
        """Return whether this worker is the chief, which writes the files."""
        return self.rank == 0


SINGLE_WORKER = WorkerContext()
"""Context of a process that trains alone."""


def connect_to_workers(addresses: Sequence[str], rank: int, cores: int) -> None:
    """Connect to the other workers, and make MultiWorkerMirroredStrategy the default strategy.

    If not all workers connect within two minutes, the process exits, and the driver restarts
    all workers.

    Args:
        addresses: `host:port` of each worker, on which TensorFlow listens.
        rank: Rank of this process, an index of `addresses`.
        cores: Number of processor cores that this process may use; it sets the number of
            TensorFlow's threads.
    """
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    cluster = {"cluster": {"worker": [*addresses]}, "task": {"type": "worker", "index": rank}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    # A socket that does not listen may reserve the port, so that no other process takes it.
    os.environ["TF_GRPC_REUSE_PORT"] = "true"
    ring = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    # TensorFlow waits for an hour, and no setting changes that. All Python threads are blocked
    # meanwhile, so that only faulthandler's thread can end the process.
    with _exit_process_on_timeout(_CONNECT_SECONDS):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    tf.distribute.experimental_set_strategy(strategy)


@contextlib.contextmanager
def exit_if_stalled() -> Iterator[None]:
    """Exit the process if the `with` block takes more than 30 minutes.

    In the block, this process waits for other workers. The time limit is for workers that are alive
    but make no progress; `translate_worker_failures` detects workers that have died. If this
    process trains alone, the block has no time limit.
    """
    if is_single_worker():
        yield
        return
    # TensorFlow's own timeout is not used, because it keeps a thread for each collective operation.
    # Each step has two such operations, so the machine would run out of threads.
    with _exit_process_on_timeout(_COLLECTIVE_SECONDS):
        yield


@contextlib.contextmanager
def _exit_process_on_timeout(seconds: float) -> Iterator[None]:
    """Print all stack traces and exit the process if the `with` block takes more than `seconds`."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def translate_worker_failures(rank: int) -> Iterator[None]:
    """Raise WorkerLostError if TensorFlow loses contact to another worker in the `with` block.

    The error is raised three seconds later, so that the lost worker can report its own error first.

    Args:
        rank: Rank of this process, for the message.

    Raises:
        WorkerLostError: A different worker no longer answers.
    """
    try:
        yield
    except _LOST_WORKER_ERRORS as error:
        time.sleep(_REPORT_SECONDS)
        reason = one_line(error.message)[:_MAX_REASON_CHARACTERS]
        raise WorkerLostError(f"worker {rank} lost contact to another worker: {reason}") from error


def enable_sync_batch_norm(network: keras.Model) -> None:
    """Make BatchNormalization layers use the statistics of the whole batch over all workers.

    Args:
        network: Network to change in place.
    """
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def scale_loss(loss: Tensor, row_count: Tensor) -> Tensor:
    """Multiply a worker's mean loss by its number of rows, if there are several workers.

    `all_reduce_mean` later divides by the number of rows of all workers, which gives the loss and
    the gradients of the whole batch. Call this function only inside `Strategy.run`, before the
    backward pass.

    Args:
        loss: Mean loss over the worker's rows, a float32 scalar.
        row_count: Number of the worker's rows, a float32 scalar.

    Returns:
        The product of loss and row count; the unchanged loss if this process trains alone.
    """
    # To multiply the gradients instead would be wrong: in the backward pass, synchronized
    # BatchNormalization sums the gradients of all workers.
    return loss if is_single_worker() else loss * row_count


def all_reduce_mean(
    scaled_tensors: Sequence[Tensor | None], row_count: Tensor
) -> list[Tensor | None]:
    """Return the mean of each tensor over the rows of all workers.

    The tensors are summed over all workers (all-reduce), and the sums are divided by the total
    number of rows. Call this function only inside `Strategy.run`.

    Args:
        scaled_tensors: The loss from `scale_loss` and its gradients, float32. None is allowed and
            stays None.
        row_count: Number of the worker's rows, a float32 scalar.

    Returns:
        The means. A process that trains alone gets the tensors unchanged, because `scale_loss` did
        not multiply its loss.
    """
    if is_single_worker():
        return [*scaled_tensors]
    # All tensors travel in one message.
    tensors = [tensor for tensor in scaled_tensors if tensor is not None]
    *sums, total_row_count = _all_reduce_sum_in_replica([*tensors, row_count])
    means = iter([tensor_sum / total_row_count for tensor_sum in sums])
    return [None if tensor is None else next(means) for tensor in scaled_tensors]


def is_single_worker() -> bool:
    """Return whether TensorFlow's current strategy has only one worker."""
    return tf.distribute.get_strategy().num_replicas_in_sync == 1


def _all_reduce_sum_in_replica(tensors: Any) -> Any:
    """Sum each tensor over all workers (all-reduce); works only inside `Strategy.run`.

    Each worker is one replica of TensorFlow's strategy.
    """
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def all_reduce_sum(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Sum NumPy arrays element by element over all workers (all-reduce).

    Every worker must call this function at the same time, because it waits for the other workers.
    Sums of integers are exact up to 2^53.

    Args:
        arrays: Arrays with the same shapes and types on every worker.
    """
    if is_single_worker():
        return [*arrays]
    # All arrays travel in one message.
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    with exit_if_stalled():
        sums = _run_all_reduce(tf.constant(flat)).numpy()
    parts = np.split(sums, np.cumsum([np.size(array) for array in arrays])[:-1])
    return [
        part.reshape(np.shape(array)).astype(np.asarray(array).dtype)
        for part, array in zip(parts, arrays, strict=True)
    ]


@tf.function(reduce_retracing=True)
def _run_all_reduce(flat: Tensor) -> Tensor:
    """Sum a tensor over all workers (all-reduce); works only outside `Strategy.run`."""
    # TensorFlow refuses a tensor from outside `Strategy.run`, which is on no device. tf.identity
    # puts it on one.
    return tf.distribute.get_strategy().run(lambda: _all_reduce_sum_in_replica(tf.identity(flat)))
