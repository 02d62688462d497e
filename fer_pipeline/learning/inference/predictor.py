"""Predict functions, which run a model with Keras or LiteRT and return class probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fer_pipeline.io.stderr_filter import hide_litert_messages

if TYPE_CHECKING:
    import keras

Pixels = npt.NDArray[np.uint8]
"""Grey images, uint8 of shape (n, size, size)."""

PredictFn = Callable[[Pixels], npt.NDArray[np.float32]]
"""Function that maps pixels to probabilities, float32 of shape (n, classes)."""

# LiteRT is as fast with small batches as with large ones. Large batches are slower once the
# activations no longer fit into the processor's caches. With 4 images instead of 64, `mirrored`
# processed 1.04 times as many images per second in 8-bit integers, `mini_xception` 1.25 times as
# many in float32, and no network lost more than 3 %. With 2 images, `system_a` processed 0.93 times
# as many as with 4.
_LITERT_BATCH_SIZE = 4  # images


@dataclass(frozen=True)
class PredictorConfig:
    """Settings of a predict function.

    Attributes:
        backend: `keras` to run a `model.keras`, `litert` to run a `.tflite` file.
        network: Name of the network, as in the setting `model.name`.
        size: Height and width of the images, in pixels.
        batch_size: Maximum number of images in a forward pass.
        threads: Maximum number of CPU threads.
        flip_tta: Whether to average the probabilities of an image and its mirror image.
    """

    backend: Literal["keras", "litert"]
    network: str
    size: int
    batch_size: int
    threads: int
    flip_tta: bool = False


@functools.lru_cache(maxsize=1)
def load_predict_fn(content: bytes, config: PredictorConfig) -> PredictFn:
    """Load a model in a Spark worker and return a function that predicts class probabilities.

    If `flip_tta` is set, the function averages the probabilities of an image and its mirror image.
    The last returned function is cached, so that Spark tasks with the same arguments load the model
    only once.

    Args:
        content: Content of the model file, `model.keras` or a `.tflite` file.
        config: Backend, network, image size, batch size, number of threads, and `flip_tta`.
    """
    if config.backend == "litert":
        predict = make_litert_predict_fn(content, config.batch_size, config.threads)
    else:
        predict = _load_keras_predict_fn(content, config)
    return functools.partial(predict_with_flip, predict) if config.flip_tta else predict


def _load_keras_predict_fn(content: bytes, config: PredictorConfig) -> PredictFn:
    """Load a `model.keras` file and return a function that predicts class probabilities.

    Also limit the number of TensorFlow's threads in this process, before the model is loaded.

    Args:
        content: Content of the file.
        config: Network, image size, batch size and number of threads.
    """
    # Importing TensorFlow takes seconds. Workers that use LiteRT do not need it.
    import tensorflow as tf

    from fer_pipeline.learning.inference import serving_model

    # Spark runs one worker per core, so more threads would compete for the cores.
    tf.config.threading.set_intra_op_parallelism_threads(config.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = serving_model.load_model_from_bytes(content, config.network)
    return make_keras_predict_fn(model, config.size, config.batch_size)


def make_keras_predict_fn(model: keras.Model, size: int, batch_size: int) -> PredictFn:
    """Return a function that predicts class probabilities with a Keras model, in batches.

    Args:
        model: Model that maps raw pixels in [0, 255], float32 of shape (n, size, size, 1), to
            probabilities.
        size: Height and width of the images, in pixels.
        batch_size: Maximum number of images in a forward pass.
    """
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None, size, size), tf.uint8)], reduce_retracing=True
    )
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        """Return the probabilities of one batch of images."""
        return model(tf.cast(pixels[..., None], tf.float32), training=False)

    def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
        """Split the images into batches, and return the probabilities of all images."""
        return np.concatenate(
            [forward(batch).numpy() for batch in _split_into_batches(pixels, batch_size)]
        )

    return predict


def make_litert_predict_fn(content: bytes, batch_size: int, threads: int = 1) -> PredictFn:
    """Return a function that predicts class probabilities with a LiteRT model, without TensorFlow.

    Args:
        content: Content of an exported `.tflite` file with one input, one output, and a variable
            batch size.
        batch_size: Maximum number of images in a forward pass; values above 4 act like 4, because
            larger batches are slower.
        threads: Maximum number of CPU threads.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    (input_details,) = interpreter.get_input_details()
    (output_details,) = interpreter.get_output_details()
    allocated_batch_size = 0

    def predict_batch(batch: Pixels) -> npt.NDArray[np.float32]:
        """Return the probabilities of one batch of images.

        If the batch has a different size than the previous one, allocate new tensors first.
        """
        nonlocal allocated_batch_size
        if len(batch) != allocated_batch_size:
            shape = (*batch.shape, 1)
            interpreter.resize_tensor_input(input_details["index"], shape, strict=True)
            with hide_litert_messages():
                interpreter.allocate_tensors()
            allocated_batch_size = len(batch)
        values = batch[..., np.newaxis].astype(np.float32)
        interpreter.set_tensor(input_details["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(output_details["index"])

    def predict(pixels: Pixels) -> npt.NDArray[np.float32]:
        """Split the images into batches, and return the probabilities of all images."""
        batches = _split_into_batches(pixels, min(batch_size, _LITERT_BATCH_SIZE))
        return np.concatenate([predict_batch(batch) for batch in batches])

    return predict


def predict_with_flip(predict: PredictFn, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Predict class probabilities averaged over each image and its mirror image.

    This is a form of test-time augmentation (TTA).

    Args:
        predict: Function that maps pixels to probabilities.
        pixels: Images, uint8 of shape (n, size, size).

    Returns:
        Averaged probabilities, float32 of shape (n, classes).
    """
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    return (predict(pixels) + predict(mirrored)) / 2.0


def _split_into_batches(pixels: Pixels, batch_size: int) -> Iterator[Pixels]:
    """Yield the images in batches; the last batch may be smaller."""
    for start in range(0, len(pixels), batch_size):
        yield pixels[start : start + batch_size]
