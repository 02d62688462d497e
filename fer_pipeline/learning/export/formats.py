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

_BATCH_SIZE = 256  # images per forward pass
_MIN_FACE_SIZE = 16  # pixels


@dataclass(frozen=True)
class ExportFormat:
    """An export format that computes in float32.

    Attributes:
        write: Function that writes a float32 Keras model to a path.
        load: Function that loads the exported file or folder and returns a function that
            predicts class probabilities.
        tolerance: Maximum absolute difference between a probability of the exported model and of
            the Keras model.
    """

    write: Callable[[keras.Model, Path], None]
    load: Callable[[Path], PredictFn]
    tolerance: float


def describe_signature(size: int, classes: int) -> dict[str, Any]:
    """Describe the serving signature of the exported models, which is the same in all formats.

    The input is raw pixels in [0, 255], the output is class probabilities.

    Args:
        size: Height and width of the images, in pixels.
        classes: Number of classes.

    Returns:
        A dictionary for JSON with the name of the signature, and the name, dtype and shape of its
        input and of its output. The first dimension, the batch size, is None because it is
        variable.
    """
    return {
        "name": SIGNATURE_NAME,
        "input": {"name": INPUT_NAME, "dtype": "float32", "shape": [None, size, size, 1]},
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "shape": [None, classes]},
    }


def write_weights_and_architecture(model: keras.Model, folder: Path) -> None:
    """Write a model as `model.weights.h5` and `architecture.json`.

    `keras.models.model_from_json` and `load_weights` restore exactly the same model.

    Args:
        model: Model to write.
        folder: Output folder; files with these names are overwritten.

    Raises:
        StorageError: The folder cannot be written.
    """
    # Reference system D in `README.md` stores its model in the same two files.
    storage.write_text(folder / RunFile.ARCHITECTURE, model.to_json(indent=1) + "\n")
    # Keras requires a file name that ends in .weights.h5, unlike the temporary files of `storage`.
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / RunFile.WEIGHTS
        model.save_weights(path)
        storage.copy(path, folder / RunFile.WEIGHTS)


def convert_to_float32(model: keras.Model) -> keras.Model:
    """Return a copy of a model in which all layers compute in float32.

    Args:
        model: Model in any precision, such as `mixed_bfloat16`; its weights are float32.

    Returns:
        A new model with the same weights.
    """
    float32_model = keras.saving.deserialize_keras_object(
        _replace_dtype_policies(keras.saving.serialize_keras_object(model))
    )
    float32_model.set_weights(model.get_weights())
    return float32_model


def _replace_dtype_policies(config: Any) -> Any:
    """Return a copy of a serialized Keras model in which all dtype policies are float32.

    The function calls itself for each part of the configuration.

    Args:
        config: Configuration from `keras.saving.serialize_keras_object`, or a part of it.
    """
    if isinstance(config, list | tuple):
        return [_replace_dtype_policies(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {key: _replace_dtype_policies(part) for key, part in config.items()}


def make_reference_images(size: int) -> Pixels:
    """Create the images for comparing an exported model with the original: faces and noise.

    These are 32 synthetic faces and 32 images of random pixels, the same in each call.

    Args:
        size: Height and width of the images, in pixels.

    Returns:
        Pixels, uint8 of shape (64, size, size).
    """
    random = np.random.default_rng(0)
    codes = [number % len(emotions.FER2013) for number in range(32)]
    # `draw_face` has a minimum size, so smaller images are cropped from larger ones.
    face_size = max(size, _MIN_FACE_SIZE)
    faces = np.stack([synthetic.draw_face(code, random, face_size)[:size, :size] for code in codes])
    return np.concatenate([faces, random.integers(0, 256, faces.shape, np.uint8)])


def predict_on_cpu(model: keras.Model, pixels: Pixels) -> Probabilities:
    """Predict the class probabilities of images with a Keras model on the CPU.

    A GPU would compute in TensorFloat-32, which is less precise than float32.

    Args:
        model: Model that maps raw pixels in [0, 255] to probabilities.
        pixels: Images, uint8 of shape (n, size, size).

    Returns:
        Probabilities, of shape (n, classes).
    """
    batches = [pixels[start : start + _BATCH_SIZE] for start in range(0, len(pixels), _BATCH_SIZE)]
    with tf.device("CPU:0"):
        inputs = (batch[..., np.newaxis].astype(np.float32) for batch in batches)
        return np.concatenate([model(batch, training=False).numpy() for batch in inputs])


def compute_largest_difference(first: Probabilities, second: Probabilities) -> float:
    """Return the largest absolute difference between corresponding elements of two arrays.

    If a probability is NaN, the result is NaN.

    Args:
        first: Probabilities, of shape (n, classes).
        second: Probabilities of the same images from another model, of the same shape.

    Raises:
        ValueError: The arrays have different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected probabilities of shape {first.shape}, got {second.shape}")
    return float(np.abs(first.astype(np.float64) - second).max())


def _load_saved_model_predict_fn(path: Path) -> PredictFn:
    """Load a SavedModel folder and return a function that predicts class probabilities on the CPU.

    Args:
        path: Folder of the SavedModel.
    """
    with tf.device("CPU:0"):
        saved_model = tf.saved_model.load(str(path))

    def predict(pixels: Pixels) -> Probabilities:
        """Return the class probabilities of images, computed in one forward pass."""
        with tf.device("CPU:0"):
            raw_pixels = tf.constant(pixels[..., np.newaxis].astype(np.float32))
            # A signature alone does not keep the weights of the loaded model alive.
            serve = saved_model.signatures[SIGNATURE_NAME]
            return serve(**{INPUT_NAME: raw_pixels})[OUTPUT_NAME].numpy()

    return predict


def _write_litert(model: keras.Model, path: Path) -> None:
    """Convert a model to LiteRT in float32 and write the LiteRT file."""
    path.write_bytes(litert.convert_to_litert(model))


def load_litert_predict_fn(path: Path) -> PredictFn:
    """Load a LiteRT file and return a function that predicts class probabilities.

    Args:
        path: Path of the `.tflite` file.
    """
    return make_litert_predict_fn(path.read_bytes(), _BATCH_SIZE)


# Both formats compute in float32, but add in a different order than Keras. With the networks of
# this package and logits scaled to a standard deviation of 3, the probabilities differed by up to
# 4e-6 (SavedModel) and 5e-5 (LiteRT). Errors in a conversion cause differences of about 1e-2.
EXPORT_FORMATS = {
    "saved_model": ExportFormat(
        litert.write_saved_model, _load_saved_model_predict_fn, tolerance=1e-4
    ),
    "litert": ExportFormat(_write_litert, load_litert_predict_fn, tolerance=5e-4),
}
