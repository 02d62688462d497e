"""A trained model in a Spark worker: loaded once, whatever number of tasks it then serves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import images

if TYPE_CHECKING:
    import keras

Pixels = npt.NDArray[np.uint8]
Predict = Callable[[Pixels], npt.NDArray[np.float32]]
"""From pixels, uint8 of shape (n, size, size), to probabilities, float32 of shape (n, classes)."""

# LiteRT is as fast with a few images as with many, until what passes between its layers no longer
# fits the processor's caches. With 4, beside 64, `mirrored` did 1.04 times as many a second in
# 8-bit integers, `mini_xception` 1.25 times in float32, and no network fewer by more than 3 %;
# with 2 `system_a` did 0.93 times as many as with 4.
_LITERT_BATCH = 4


@dataclass(frozen=True)
class PredictorConfig:
    """How a model is run.

    Attributes:
        runtime: What runs it: TensorFlow, the content of a `model.keras`; LiteRT, that of a
            `.tflite` file of `exporting`.
        network: Its network's name in the configuration.
        size: The side of its images, in pixels.
        batch_size: How many images go through the network at once, at most.
        threads: How many processor threads it may use.
        flip: Whether its answer is the mean of those for the image and its mirror image.
    """

    runtime: Literal["keras", "litert"]
    network: str
    size: int
    batch_size: int
    threads: int
    flip: bool = False


@functools.lru_cache(maxsize=1)
def predictor(model: bytes, settings: PredictorConfig) -> Predict:
    """Loads a model; the same arguments give the model that is loaded already.

    Args:
        model: The content of its file.
        settings: How it is run.
    """
    if settings.runtime == "litert":
        plain = with_litert(model, settings.batch_size, settings.threads)
    else:
        plain = _loaded(model, settings)
    return functools.partial(images.predict_with_flip, plain) if settings.flip else plain


def _loaded(model: bytes, settings: PredictorConfig) -> Predict:
    # Importing TensorFlow takes seconds: a worker with LiteRT does without it.
    import tensorflow as tf

    from fer_pipeline.learning.inference import serving_model

    # There is one worker for each core: more threads would only compete.
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = serving_model.from_bytes(model, settings.network)
    return with_keras(loaded, settings.size, settings.batch_size)


def with_keras(model: keras.Model, size: int, batch_size: int) -> Predict:
    """Runs a model in memory.

    Args:
        model: From raw pixels, 0..255 of shape (n, size, size, 1), to probabilities.
        size: The side of its images, in pixels.
        batch_size: How many of them go through at once.
    """
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None, size, size), tf.uint8)], reduce_retracing=True
    )
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(pixels[..., None], tf.float32), training=False)

    def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
        return np.concatenate([forward(part).numpy() for part in _parts(pixels, batch_size)])

    return predict


def with_litert(content: bytes, batch_size: int, threads: int = 1) -> Predict:
    """Runs a LiteRT model, without TensorFlow.

    Args:
        content: Of its file, one of `exporting`: one input, one output, any number of images.
        batch_size: How many images go through at once, at most.
        threads: How many processor threads it may use.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    ready = 0

    def run(part: Pixels) -> npt.NDArray[np.float32]:
        nonlocal ready
        if len(part) != ready:
            interpreter.resize_tensor_input(given["index"], (*part.shape, 1), strict=True)
            interpreter.allocate_tensors()
            ready = len(part)
        interpreter.set_tensor(given["index"], part[..., np.newaxis].astype(np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
        return np.concatenate(
            [run(part) for part in _parts(pixels, min(batch_size, _LITERT_BATCH))]
        )

    return predict


def _parts(pixels: Pixels, batch_size: int) -> Iterator[Pixels]:
    for start in range(0, len(pixels), batch_size):
        yield pixels[start : start + batch_size]
