"""The model of a finished training run: it takes raw pixels."""

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
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.networks import registry

NORMALIZATION = "normalization"
"""The name of the layer that makes of pixels what the network sees."""


def build_serving_model(
    network: keras.Model, size: int, normalization: Normalization, temperature: float = 1.0
) -> keras.Model:
    """The model that is saved: the network between one normalisation layer and a softmax.

    Args:
        network: From normalised pixels to logits.
        size: The side of the images, in pixels.
        normalization: What the network sees of a pixel: the layer gives the very bits of its table,
            because both multiply and add in float32.
        temperature: What the logits are divided by, above 0. It moves no prediction, only how sure
            the model is of it.

    Returns:
        A model from raw pixels, 0..255 of shape (n, size, size, 1), to probabilities of shape
        (n, classes). It shares the network's weights.
    """
    pixels = keras.Input((size, size, 1), name="pixels")
    rescale = keras.layers.Rescaling(normalization.scale, normalization.offset, name=NORMALIZATION)
    logits = network(rescale(pixels))
    # Whatever precision the network computes in, probabilities are float32.
    if temperature != 1:
        calibrate = keras.layers.Rescaling(1 / temperature, name="temperature", dtype="float32")
        logits = calibrate(logits)
    softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
    return keras.Model(pixels, softmax(logits), name="fer_pipeline")


def save(model: keras.Model, path: Path) -> None:
    """Saves a model in one step: what stands at the path is the old one or the new one."""
    with storage.atomic_write(path) as temporary:
        model.save(temporary)


def load(folder: Path) -> tuple[keras.Model, ModelInfo]:
    """Loads a finished run's model.

    Raises:
        RunError: The folder is no finished run, or is damaged.
    """
    info, content = trained_model.read_model(folder)
    return from_bytes(content, info.network), info


def from_bytes(content: bytes, network: str) -> keras.Model:
    """The model in the content of a `model.keras`.

    Args:
        content: The content.
        network: The network's name in the configuration: where it is the user's own, it may have
            layers of its own too.

    Raises:
        RunError: Keras cannot load it.
        ConfigError: The user's module cannot be imported.
    """
    registry.import_layers(network)
    with _scratch() as path:
        path.write_bytes(content)
        with _unserializable(network, "loaded"):
            return keras.models.load_model(path, compile=False)


def require_loadable(model: keras.Model, network: str) -> None:
    """Makes sure, before it is trained, that a model can be loaded once it is saved.

    Raises:
        RunError: It cannot.
    """
    with _scratch() as path:
        with _unserializable(network, "saved"):
            model.save(path)
        from_bytes(path.read_bytes(), network)


@contextlib.contextmanager
def _unserializable(network: str, done: str) -> Iterator[None]:
    """Keras says at length, and in several ways, what it cannot write down or make again."""
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        raise RunError(
            f"the model of {network} cannot be {done}: {' '.join(str(error).split())[:200]};"
            " its own layers need keras.saving.register_keras_serializable and get_config, and"
            " no Lambda"
        ) from error


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A path for a model that is gone afterwards: Keras saves to and loads from a path alone."""
    try:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary) / RunFile.MODEL
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; TMPDIR names another"
            " folder"
        ) from error
