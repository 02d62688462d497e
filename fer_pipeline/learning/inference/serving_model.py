"""The Keras model that a training run saves: from raw pixels to probabilities."""

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
    """Build the model that is saved: a normalisation layer, the network, and a softmax.

    Args:
        network: Network from normalised pixels to logits.
        size: Side of the images, in pixels.
        normalization: Normalisation of the pixels. The layer returns the exact bits of its lookup
            table, because both multiply and add in float32.
        temperature: Divisor of the logits, above 0. It changes no predicted class, only the
            probabilities.

    Returns:
        A model from raw pixels, 0..255 of shape (n, size, size, 1), to probabilities of shape
        (n, classes). It shares the network's weights.
    """
    pixels = keras.Input((size, size, 1), name="pixels")
    rescale = keras.layers.Rescaling(
        normalization.scale, normalization.offset, name=NORMALIZATION_LAYER
    )
    logits = network(rescale(pixels))
    # Probabilities are float32, whatever the precision of the network.
    if temperature != 1:
        calibrate = keras.layers.Rescaling(1 / temperature, name="temperature", dtype="float32")
        logits = calibrate(logits)
    softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
    return keras.Model(pixels, softmax(logits), name="fer_pipeline")


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model in one step: the path holds the old file or the whole new one.

    Raises:
        StorageError: The file cannot be written.
    """
    with storage.atomic_write(path) as temporary:
        model.save(temporary)


def load_model_content(content: bytes, network: str) -> keras.Model:
    """Load a model from the content of a `model.keras`.

    Args:
        content: Content of the file.
        network: Name of the network in the configuration. Its module is imported first, because a
            network may have custom layers.

    Raises:
        RunError: Keras cannot load the model.
        ConfigError: The module of a custom network cannot be imported.
    """
    registry.import_network_module(network)
    with _temporary_model_path() as path:
        path.write_bytes(content)
        with _translate_keras_errors(network, "loaded"):
            return keras.models.load_model(path, compile=False)


def require_loadable(model: keras.Model, network: str) -> None:
    """Check before a training that the model can be saved and loaded.

    Args:
        model: The model.
        network: Name of its network in the configuration.

    Raises:
        RunError: It cannot.
    """
    with _temporary_model_path() as path:
        with _translate_keras_errors(network, "saved"):
            model.save(path)
        load_model_content(path.read_bytes(), network)


@contextlib.contextmanager
def _translate_keras_errors(network: str, action: str) -> Iterator[None]:
    """Raise a one-line error for each of the ways in which Keras reports what it cannot serialize.

    Raises:
        RunError: Keras raised an error.
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
def _temporary_model_path() -> Iterator[Path]:
    """Provide the path of a temporary model file, because Keras saves to and loads from paths.

    Raises:
        StorageError: The temporary folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary) / RunFile.MODEL
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; set TMPDIR to another"
            " folder"
        ) from error
