"""Serving model: the Keras model that a training run saves.

It maps raw pixels to probabilities: a normalisation layer, the network, and a softmax.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.networks import registry
from fer_pipeline.text import one_line

NORMALIZATION_LAYER = "normalization"
"""Name of the layer that normalises the raw pixels."""


def build_serving_model(
    network: keras.Model, size: int, normalization: Normalization, temperature: float = 1.0
) -> keras.Model:
    """Build the model to save: a normalisation layer, the network, and a softmax.

    Args:
        network: Model that maps normalised pixels to logits.
        size: Height and width of the images, in pixels.
        normalization: Scale and offset of the normalisation layer.
        temperature: Positive number that divides the logits (temperature scaling). It changes the
            probabilities, but not the predicted classes.

    Returns:
        A model that maps raw pixels in [0, 255], of shape (n, size, size, 1), to probabilities,
        float32 of shape (n, classes). It shares its weights with the network.
    """
    pixels = keras.Input((size, size, 1), name="pixels")
    # The layer and `Normalization.lookup_table` both compute in float32, so their values are
    # bit-identical.
    rescale = keras.layers.Rescaling(
        normalization.scale, normalization.offset, name=NORMALIZATION_LAYER
    )
    logits = network(rescale(pixels))
    # The probabilities are float32, even if the network computes in bfloat16.
    if temperature != 1:
        calibrate = keras.layers.Rescaling(1 / temperature, name="temperature", dtype="float32")
        logits = calibrate(logits)
    softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
    return keras.Model(pixels, softmax(logits), name="fer_pipeline")


def save_model(model: keras.Model, path: Path) -> None:
    """Save a Keras model to a file and replace an existing file.

    The write is atomic: at any time the path holds either the old file or the complete new file.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage.atomic_write(path) as temporary:
        model.save(temporary)


def load_model_from_bytes(content: bytes, network: str) -> keras.Model:
    """Load a model from the content of a `model.keras` file.

    Args:
        content: Content of the file.
        network: Name of the network, as in the setting `model.name`. Its module is imported first,
            because the network may have custom layers.

    Raises:
        RunError: Keras cannot load the model.
        ConfigError: The module of a custom network cannot be imported.
        StorageError: The temporary folder cannot be written.
    """
    registry.import_network_module(network)
    with _provide_temporary_model_path() as path:
        path.write_bytes(content)
        with _translate_keras_errors(network, "loaded"):
            return keras.models.load_model(path, compile=False)


def require_loadable_model(model: keras.Model, network: str) -> None:
    """Check before the training that Keras can save the model and load it again.

    The model is saved to a temporary file.

    Args:
        model: Model that the training will save: a normalisation layer, the network and a softmax.
        network: Name of the network, as in the setting `model.name`.

    Raises:
        RunError: Keras cannot save or load the model.
        StorageError: The temporary folder cannot be written.
    """
    with _provide_temporary_model_path() as path:
        with _translate_keras_errors(network, "saved"):
            model.save(path)
        load_model_from_bytes(path.read_bytes(), network)


@contextlib.contextmanager
def _translate_keras_errors(network: str, action: str) -> Iterator[None]:
    """Raise RunError if Keras cannot save or load a model in the `with` block.

    Args:
        network: Name of the network, for the error message.
        action: "saved" or "loaded", for the error message.

    Raises:
        RunError: The block raised a TypeError, ValueError or NotImplementedError.
    """
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        raise RunError(
            f"the model of {network} cannot be {action}: {one_line(error)[:200]};"
            " its custom layers need keras.saving.register_keras_serializable and get_config, and"
            " must not be Lambda layers"
        ) from error


@contextlib.contextmanager
def _provide_temporary_model_path() -> Iterator[Path]:
    """Provide a path for a temporary model file, because Keras saves to and loads from paths only.

    The path is in a temporary folder, which is deleted at the end of the `with` statement.

    Raises:
        StorageError: The temporary folder cannot be written, or the body of the `with` statement
            raises an OSError.
    """
    try:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary) / RunFile.MODEL
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; set TMPDIR to another"
            " folder"
        ) from error
