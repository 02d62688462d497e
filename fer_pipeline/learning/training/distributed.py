"""Several processes that train one network together, on as many machines.

Each makes the gradient of its part of a batch. They are summed over all workers before a step is
made with them, so that all networks stay the same: synchronous data parallelism, which is
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

# For all of them to be there, after each was seen to be.
_SECONDS_TO_MEET = 120
# For some steps of a large network on large batches, while the first may still write a checkpoint.
_SECONDS_TO_WAIT = 1800
# One that fails by itself is heard before those who only miss it.
_SECONDS_TO_BE_HEARD = 3.0
# What TensorFlow says where another worker ended. All else is a mistake of this one.
_LOST = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
    *(tf.errors.DeadlineExceededError, tf.errors.InternalError),
)


@dataclass(frozen=True)
class WorkerContext:
    """Which worker this process is, of how many.

    Attributes:
        number: From 0, which is the chief: the one that writes.
        count: How many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        """Whether it is the one that writes."""
        return self.number == 0


SINGLE_WORKER = WorkerContext()
"""A process that trains by itself."""


def init_distributed(addresses: Sequence[str], number: int, cores: int) -> None:
    """Meets the other workers: from here on TensorFlow's default strategy is that of all of them.

    Where they are not all there in time, the process ends: Spark then begins all of them again.

    Args:
        addresses: `host:port` of each worker; nobody but TensorFlow listens there.
        number: Which of them this process is.
        cores: How many processor cores it may use.
    """
    tf.config.threading.set_intra_op_parallelism_threads(cores)
    cluster = {"cluster": {"worker": [*addresses]}, "task": {"type": "worker", "index": number}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
    # The port may be held by a socket that does not listen, so that nobody else takes it.
    os.environ["TF_GRPC_REUSE_PORT"] = "true"
    ring = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    # TensorFlow waits an hour, whatever it is told, and lets no thread of Python run meanwhile.
    with _ended_after(_SECONDS_TO_MEET):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    tf.distribute.experimental_set_strategy(strategy)


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Around what needs the others: where one does not come in time, the process ends.

    One that dies is noticed within seconds, by `losses`; this is for one that lives and stands
    still. TensorFlow's own limit for a sum would keep a thread for each one until it is over, two a
    step, until the machine has no more of them.
    """
    with contextlib.nullcontext() if is_single_worker() else _ended_after(_SECONDS_TO_WAIT):
        yield


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def worker_failures(number: int) -> Iterator[None]:
    """Around what workers do together.

    Args:
        number: Which of them this process is.

    Raises:
        WorkerLostError: Another one does not answer any more.
    """
    try:
        yield
    except _LOST as error:
        time.sleep(_SECONDS_TO_BE_HEARD)
        reason = " ".join(str(error.message).split())[:200]
        raise WorkerLostError(f"worker {number} lost another one: {reason}") from error


def enable_sync_batch_norm(network: keras.Model) -> None:
    """Has BatchNormalization take its statistics over the parts of all workers."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def scale_loss(loss: Tensor, rows: Tensor) -> Tensor:
    """What a worker takes the gradient of, in a replica's step, for `mean` to follow.

    Synchronised BatchNormalization adds up the gradients of all workers on its way back, so what
    each one's rows weigh has to be in them before.

    Args:
        loss: The mean over the worker's rows.
        rows: How many these are, float32.
    """
    return loss if is_single_worker() else loss * rows


def all_reduce_mean(values: Sequence[Tensor | None], rows: Tensor) -> list[Tensor | None]:
    """The means over the rows of all workers, in a replica's step, in one message.

    Args:
        values: Of the worker's rows, float32, as `weighed`; None stays.
        rows: How many these are, float32.
    """
    if is_single_worker():
        return [*values]
    found = [value for value in values if value is not None]
    *sums, count = _sum([*found, rows])
    means = iter([value / count for value in sums])
    return [None if value is None else next(means) for value in values]


def is_single_worker() -> bool:
    """Whether this process trains by itself, within TensorFlow's strategy as it stands."""
    return tf.distribute.get_strategy().num_replicas_in_sync == 1


def _sum(value: Tensor) -> Tensor:
    replicas = tf.distribute.get_replica_context()
    return replicas.all_reduce(tf.distribute.ReduceOp.SUM, value)


def all_reduce_sum(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The sums over all workers of arrays in Python; every worker has to call it.

    Sums of integers are exact up to 2^53.
    """
    if is_single_worker():
        return [*arrays]
    # One message for all of them.
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    with watchdog():
        sums = _summed(tf.constant(flat)).numpy()
    parts = np.split(sums, np.cumsum([np.size(array) for array in arrays])[:-1])
    return [
        part.reshape(np.shape(array)).astype(np.asarray(array).dtype)
        for part, array in zip(parts, arrays, strict=True)
    ]


@tf.function(reduce_retracing=True)
def _summed(values: Tensor) -> Tensor:
    # As a result of the step: what comes from outside of it is on no device, and is refused.
    return tf.distribute.get_strategy().run(lambda: _sum(tf.identity(values)))
