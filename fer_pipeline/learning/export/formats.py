"""Export formats of a trained model, and functions that compare an export with the model."""

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
from fer_pipeline.learning.export.litert import INPUT_NAME, OUTPUT_NAME, SIGNATURE_NAME
from fer_pipeline.learning.inference.predictor import Pixels, PredictFn, make_litert_predict_fn

Probabilities = npt.NDArray[np.float32]
"""Probabilities, of shape (n, classes)."""

_BATCH_SIZE = 256  # images in a forward pass
_MIN_FACE_SIZE = 16  # pixels


@dataclass(frozen=True)
class ExportFormat:
    """A format that computes in float32.

    Attributes:
        write: Writes a model that computes in float32 to a path.
        load: Loads the file or folder at a path.
        tolerance: Maximum difference of a probability from the model's.
    """

    write: Callable[[keras.Model, Path], None]
    load: Callable[[Path], PredictFn]
    tolerance: float


def describe_signature(size: int, classes: int) -> dict[str, Any]:
    """Return the one signature of all formats: raw pixels, 0..255, to probabilities.

    Args:
        size: Side of the images, in pixels.
        classes: Number of emotions.

    Returns:
        Names, dtypes and shapes as plain values for JSON; None is a batch of any size.
    """
    return {
        "name": SIGNATURE_NAME,
        "input": {"name": INPUT_NAME, "dtype": "float32", "shape": [None, size, size, 1]},
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "shape": [None, classes]},
    }


def write_weights(model: keras.Model, folder: Path) -> None:
    """Write a model as `model.weights.h5` and `architecture.json`, as reference system D does.

    `keras.models.model_from_json` and `load_weights` restore the model to the last bit.

    Raises:
        StorageError: The folder cannot be written.
    """
    storage.write_text(folder / RunFile.ARCHITECTURE, model.to_json(indent=1) + "\n")
    # Keras requires a name that ends in .weights.h5, which temporary files of storage do not have.
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / RunFile.WEIGHTS
        model.save_weights(path)
        storage.copy(path, folder / RunFile.WEIGHTS)


def convert_to_float32(model: keras.Model) -> keras.Model:
    """Return a model with the same weights whose layers all compute in float32.

    Args:
        model: Model that may compute in another precision, such as `mixed_bfloat16`; its weights
            are float32 in any case.
    """
    converted = keras.saving.deserialize_keras_object(
        _replace_dtype_policies(keras.saving.serialize_keras_object(model))
    )
    converted.set_weights(model.get_weights())
    return converted


def _replace_dtype_policies(config: Any) -> Any:
    """Return Keras's configuration of a model with float32 in each dtype policy."""
    if isinstance(config, list | tuple):
        return [_replace_dtype_policies(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {key: _replace_dtype_policies(part) for key, part in config.items()}


def make_reference_images(size: int) -> Pixels:
    """Return the images on which an export is compared with its model: synthetic faces, and noise.

    They are the same in each call.

    Args:
        size: Side of the images, in pixels.

    Returns:
        Pixels, uint8 of shape (64, size, size).
    """
    random = np.random.default_rng(0)
    codes = [number % len(emotions.FER2013) for number in range(32)]
    # `draw_face` has a minimum size, so smaller faces are cut out of larger ones.
    drawing_size = max(size, _MIN_FACE_SIZE)
    faces = np.stack(
        [synthetic.draw_face(code, random, drawing_size)[:size, :size] for code in codes]
    )
    return np.concatenate([faces, random.integers(0, 256, faces.shape, np.uint8)])


def predict_on_cpu(model: keras.Model, pixels: Pixels) -> Probabilities:
    """Return the probabilities of a Keras model, computed on the CPU.

    A GPU would round products to TensorFloat-32, which is less precise than float32.
    """
    batches = [pixels[start : start + _BATCH_SIZE] for start in range(0, len(pixels), _BATCH_SIZE)]
    with tf.device("CPU:0"):
        values = (batch[..., np.newaxis].astype(np.float32) for batch in batches)
        return np.concatenate([model(batch, training=False).numpy() for batch in values])


def compute_largest_difference(first: Probabilities, second: Probabilities) -> float:
    """Return the largest difference of two probabilities; NaN if one of them is NaN.

    Raises:
        ValueError: The arrays have different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected probabilities of shape {first.shape}, got {second.shape}")
    return float(np.abs(first.astype(np.float64) - second).max())


def _load_saved_model(path: Path) -> PredictFn:
    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(path))

    def predict(pixels: Pixels) -> Probabilities:
        with tf.device("CPU:0"):
            values = tf.constant(pixels[..., np.newaxis].astype(np.float32))
            return loaded.signatures[SIGNATURE_NAME](**{INPUT_NAME: values})[OUTPUT_NAME].numpy()

    return predict


def _write_litert(model: keras.Model, path: Path) -> None:
    path.write_bytes(litert.convert_to_litert(model))


def load_litert(path: Path) -> PredictFn:
    """Load a LiteRT file."""
    return make_litert_predict_fn(path.read_bytes(), _BATCH_SIZE)


# Both compute in float32 but sum in another order. For the networks of this package, with logits
# scaled to a standard deviation of 3, the differences were up to 4e-6 and 5e-5; a mistake causes
# 1e-2.
EXPORT_FORMATS = {
    "saved_model": ExportFormat(litert.write_saved_model, _load_saved_model, tolerance=1e-4),
    "litert": ExportFormat(_write_litert, load_litert, tolerance=5e-4),
}
