"""A trained model in a Spark worker: loaded once, whatever number of tasks it then serves."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From pixels, uint8 of shape (n, size, size), to probabilities, float32 of shape (n, classes)."""


@functools.lru_cache(maxsize=1)
def predictor(model: bytes, network: str, size: int, batch_size: int, threads: int) -> Predict:
    """Loads a model; the same arguments give the model that is loaded already.

    Args:
        model: The content of a `model.keras`.
        network: Its network's name in the configuration.
        size: The side of its images, in pixels.
        batch_size: How many images go through the network at once.
        threads: How many processor threads it may use.
    """
    import tensorflow as tf

    from fer_pipeline.learning.model import bundle

    # There is one worker for each core: more threads would only compete.
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = bundle.from_bytes(model, network)

    @tf.function(
        input_signature=[tf.TensorSpec((None, size, size), tf.uint8)], reduce_retracing=True
    )
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return loaded(tf.cast(pixels[..., None], tf.float32), training=False)

    def predict(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        chunks = [
            forward(pixels[start : start + batch_size]).numpy()
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(chunks)

    return predict
