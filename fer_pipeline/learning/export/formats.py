"""A trained model in the forms that other programs load, and how they compare with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.data import emotions, synthetic
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.export import litert
from fer_pipeline.learning.export.litert import INPUT, OUTPUT, SIGNATURE
from fer_pipeline.learning.inference.predictor import Pixels, Predict, with_litert

Probabilities = npt.NDArray[np.float32]
_AT_ONCE = 256


@dataclass(frozen=True)
class ExportFormat:
    """A form in which a model is exported.

    Attributes:
        write: Writes a model, one that computes in float32, to a path.
        load: Loads what stands at a path.
        tolerance: How far its probabilities may be from the model's, as the largest difference of
            two of them.
    """

    write: Callable[[keras.Model, Path], None]
    load: Callable[[Path], Predict]
    tolerance: float


def signature(size: int, classes: int) -> dict[str, Any]:
    """The one signature of every export: raw pixels, 0..255, to probabilities.

    Args:
        size: The side of the images, in pixels.
        classes: How many emotions there are.

    Returns:
        Names, dtypes and shapes as JSON's plain values; None stands for any number of images.
    """
    return {
        "name": SIGNATURE,
        "input": {"name": INPUT, "dtype": "float32", "shape": [None, size, size, 1]},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": [None, classes]},
    }


def write_weights(model: keras.Model, folder: Path) -> None:
    """Writes a model as `model.weights.h5` beside `architecture.json`, as reference system D does.

    `keras.models.model_from_json` and `load_weights` give the same model, to the last bit.

    Raises:
        StorageError: The folder cannot be written.
    """
    storage.write_text(folder / RunFile.ARCHITECTURE, model.to_json(indent=1) + "\n")
    # Keras wants a name that ends in .weights.h5, which that of no temporary file does.
    with TemporaryDirectory() as scratch:
        model.save_weights(Path(scratch) / RunFile.WEIGHTS)
        storage.copy(Path(scratch) / RunFile.WEIGHTS, folder / RunFile.WEIGHTS)


def in_float32(model: keras.Model) -> keras.Model:
    """The same model with the same weights, all of it computed in float32.

    Args:
        model: One that may compute in another precision, such as `mixed_bfloat16`; its weights are
            float32 in any case.
    """
    made = keras.saving.deserialize_keras_object(
        _with_float32(keras.saving.serialize_keras_object(model))
    )
    made.set_weights(model.get_weights())
    return made


def _with_float32(config: Any) -> Any:
    """What Keras says of a model, each of its precisions replaced."""
    if isinstance(config, list | tuple):
        return [_with_float32(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {key: _with_float32(value) for key, value in config.items()}


def reference_images(size: int) -> Pixels:
    """The images on which an export is compared with its model: drawn faces, and noise.

    They are the same every time.

    Args:
        size: Their side, in pixels.

    Returns:
        Pixels, uint8 of shape (64, size, size).
    """
    random = np.random.default_rng(0)
    codes = [number % len(emotions.FER2013) for number in range(32)]
    # Smaller ones cannot be drawn, only cut out.
    side = max(size, 16)
    faces = np.stack([synthetic.draw_face(code, random, side)[:size, :size] for code in codes])
    return np.concatenate([faces, random.integers(0, 256, faces.shape, np.uint8)])


def run_model(model: keras.Model, pixels: Pixels) -> Probabilities:
    """The probabilities of a model in memory, computed on the processor.

    A GPU rounds products to TensorFloat-32, which is no float32.
    """
    parts = [pixels[start : start + _AT_ONCE] for start in range(0, len(pixels), _AT_ONCE)]
    with tf.device("CPU:0"):
        given = (part[..., np.newaxis].astype(np.float32) for part in parts)
        return np.concatenate([model(part, training=False).numpy() for part in given])


def largest_difference(one: Probabilities, other: Probabilities) -> float:
    """The largest difference of two probabilities; NaN where one of them is none.

    Raises:
        ValueError: They are of different shapes.
    """
    if one.shape != other.shape:
        raise ValueError(f"expected probabilities of shape {one.shape}, got {other.shape}")
    return float(np.abs(one.astype(np.float64) - other).max())


def _load_saved_model(path: Path) -> Predict:
    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(path))

    def predict(pixels: Pixels) -> Probabilities:
        with tf.device("CPU:0"):
            given = tf.constant(pixels[..., np.newaxis].astype(np.float32))
            return loaded.signatures[SIGNATURE](**{INPUT: given})[OUTPUT].numpy()

    return predict


def _write_litert(model: keras.Model, path: Path) -> None:
    path.write_bytes(litert.in_float32(model))


def load_litert(path: Path) -> Predict:
    """Loads a LiteRT file."""
    return with_litert(path.read_bytes(), _AT_ONCE)


# Both compute in float32, but add up in other orders. On the networks of this package, their logits
# stretched to a deviation of 3, the differences were up to 4e-6 and 5e-5; a mistake makes 1e-2.
FORMS = {
    "saved_model": ExportFormat(litert.write_saved_model, _load_saved_model, tolerance=1e-4),
    "litert": ExportFormat(_write_litert, load_litert, tolerance=5e-4),
}
