"""Several processes that train one network together, on as many machines.

Each makes the gradient of its part of a batch. They are summed over all workers before a step is
made with them, so that all networks stay the same: synchronous data parallelism, which is
TensorFlow's MultiWorkerMirroredStrategy.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.errors import WorkerLostError

Tensor = Any

# The first worker validates nothing alone, but it writes checkpoints while the others wait.
_SECONDS_TO_WAIT = 600.0


@dataclass(frozen=True)
class Workers:
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


ALONE = Workers()
"""A process that trains by itself."""


def join(addresses: Sequence[str], number: int, cores: int) -> None:
    """Meets the other workers: from here on TensorFlow's default strategy is that of all of them.

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
        implementation=tf.distribute.experimental.CommunicationImplementation.RING,
        timeout_seconds=_SECONDS_TO_WAIT,
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    tf.distribute.experimental_set_strategy(strategy)


@contextlib.contextmanager
def losses(number: int) -> Iterator[None]:
    """Around what workers do together.

    Args:
        number: Which of them this process is.

    Raises:
        WorkerLostError: Another one does not answer any more.
    """
    try:
        yield
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())[:200]
        raise WorkerLostError(f"worker {number} lost another one: {reason}") from error


def synchronize(network: keras.Model) -> None:
    """Has BatchNormalization take its statistics over the parts of all workers."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def total(value: Tensor) -> Tensor:
    """The sum over all workers, in a replica's step: a tensor or a list of them.

    They are float32 or float64 where there are several workers.
    """
    replicas = tf.distribute.get_replica_context()
    if replicas.num_replicas_in_sync == 1:
        return value
    return replicas.all_reduce(tf.distribute.ReduceOp.SUM, value)


def totals(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The sums over all workers of arrays in Python; every worker has to call it.

    Sums of integers are exact up to 2^53.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return [*arrays]
    # One message for all of them.
    flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])

    parts = np.split(
        _summed(tf.constant(flat)).numpy(), np.cumsum([np.size(array) for array in arrays])[:-1]
    )
    return [
        part.reshape(np.shape(array)).astype(np.asarray(array).dtype)
        for part, array in zip(parts, arrays, strict=True)
    ]


@tf.function(reduce_retracing=True)
def _summed(values: Tensor) -> Tensor:
    # As a result of the step: what comes from outside of it is on no device, and is refused.
    return tf.distribute.get_strategy().run(lambda: total(tf.identity(values)))
