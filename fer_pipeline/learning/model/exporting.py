"""A trained model in the forms that other programs load: SavedModel, LiteRT, JSON with weights."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from fer_pipeline import emotions, storage, synthetic
from fer_pipeline.errors import RunError

ARCHITECTURE, WEIGHTS = "architecture.json", "model.weights.h5"
SIGNATURE, INPUT, OUTPUT = "serving_default", "pixels", "probabilities"

Images = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """A form in which a model is exported.

    Attributes:
        write: Writes a model, one that computes in float32, to a path.
        run: Loads what stands at a path and gives its probabilities of images.
        tolerance: How far they may be from the model's, as the largest difference of two
            probabilities.
    """

    write: Callable[[keras.Model, Path], None]
    run: Callable[[Path, Images], Probabilities]
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
    storage.write_text(folder / ARCHITECTURE, model.to_json(indent=1) + "\n")
    # Keras wants a name that ends in .weights.h5, which the temporary one does not.
    with storage.replacing(folder / WEIGHTS) as temporary, TemporaryDirectory() as scratch:
        model.save_weights(Path(scratch) / WEIGHTS)
        shutil.copyfile(Path(scratch) / WEIGHTS, temporary)


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


def probe(size: int) -> Images:
    """The images on which an export is compared with its model: drawn faces, and noise.

    They are the same every time.

    Args:
        size: Their side, in pixels.

    Returns:
        Pixels, 0..255 of shape (64, size, size, 1).
    """
    random = np.random.default_rng(0)
    codes = [number % len(emotions.FER2013) for number in range(32)]
    # Smaller ones cannot be drawn, only cut out.
    side = max(size, 16)
    faces = np.stack([synthetic.draw_face(code, random, side)[:size, :size] for code in codes])
    noise = random.integers(0, 256, faces.shape, np.uint8)
    return np.concatenate([faces, noise])[..., np.newaxis].astype(np.float32)


def run_model(model: keras.Model, images: Images) -> Probabilities:
    """The probabilities of a model in memory, computed on the processor.

    A GPU rounds products to TensorFloat-32, which is no float32.
    """
    with tf.device("CPU:0"):
        return model(images, training=False).numpy()


def largest_difference(one: Probabilities, other: Probabilities) -> float:
    """The largest difference of two probabilities; NaN where one of them is none.

    Raises:
        ValueError: They are of different shapes.
    """
    if one.shape != other.shape:
        raise ValueError(f"expected probabilities of shape {one.shape}, got {other.shape}")
    return float(np.abs(one.astype(np.float64) - other).max())


def _write_saved_model(model: keras.Model, path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32, name=INPUT)])
    def serve(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: model(pixels, training=False)}

    # Keras's own export stores every weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: serve})


def _run_saved_model(path: Path, images: Images) -> Probabilities:
    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(path))
        return loaded.signatures[SIGNATURE](**{INPUT: tf.constant(images)})[OUTPUT].numpy()


def _write_litert(model: keras.Model, path: Path) -> None:
    # By way of a SavedModel, so that both have the same signature.
    with TemporaryDirectory() as scratch:
        _write_saved_model(model, Path(scratch))
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=[SIGNATURE])
        try:
            content = converter.convert()
        except ConverterError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{model.name}: LiteRT has no form of it, leave litert out: {reason}"
            ) from error
    path.write_bytes(content)


def _run_litert(path: Path, images: Images) -> Probabilities:
    with warnings.catch_warnings():
        # That it will move to the package ai-edge-litert, which says nothing to a user.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = tf.lite.Interpreter(str(path))
    run = interpreter.get_signature_runner(SIGNATURE)
    # A copy: the array is the interpreter's own memory.
    return run(**{INPUT: images})[OUTPUT].copy()


# Both compute in float32, but add up in other orders. On the networks of this package, their logits
# stretched to a deviation of 3, the differences were up to 4e-6 and 5e-5; a mistake makes 1e-2.
FORMS = {
    "saved_model": Form(_write_saved_model, _run_saved_model, tolerance=1e-4),
    "litert": Form(_write_litert, _run_litert, tolerance=5e-4),
}
