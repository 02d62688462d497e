"""What a finished training run is: a model that takes raw pixels, and what is known of it."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
from pydantic import BaseModel, ConfigDict

from fer_pipeline import publication, storage
from fer_pipeline.enhancement import Enhancement
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.learning import networks
from fer_pipeline.pixels import Normalization
from fer_pipeline.publication import SHIPPED

MODEL, INFO, EXPORTS = "model.keras", "model.json", "export"
NORMALIZATION = "normalization"
"""The name of the layer that makes of pixels what the network sees."""

FORMAT_VERSION = 1

PRETRAINED = Path(__file__).parents[2] / "pretrained"
"""The folder of the models that come with the package: the finished run of each, by its name."""


class RunInfo(BaseModel):
    """What a run says of its model; `model.json`.

    Attributes:
        classes: The emotions in the order of the model's outputs.
        size: The side of the images that it takes, in pixels.
        normalization: What the network sees of a pixel; the model itself applies it.
        enhancement: What images went through before; the model does not apply it.
        dataset_checksum: Of the dataset that it was trained on.
        network: Its name in the configuration.
        options: Its options there.
        parameters: How many it has.
        precision: In which it was trained, `float32` or `mixed_bfloat16`.
        best_step: The step after which it was best, or the last one.
        best_trial: In which of several trials, from 0.
        best_accuracy: Its validation accuracy then; None without a validation split.
        best_class_accuracies: The same of each class; empty without a validation split.
        teachers: The SHA-256 of each model that taught it.
        temperature: What the model divides its logits by (Guo et al. 2017, arXiv:1706.04599).
        seed: Of every random choice.
        workers: How many trained it together, to its end.
        sha256: Of the file `model.keras`.
        versions: Of the packages that made it.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["fer_pipeline run"] = "fer_pipeline run"
    format_version: int = FORMAT_VERSION
    classes: list[str]
    size: int
    normalization: Normalization
    enhancement: Enhancement = Enhancement()
    dataset_checksum: str
    network: str
    options: dict[str, Any]
    parameters: int
    precision: str = "float32"
    best_step: int
    best_trial: int = 0
    best_accuracy: float | None
    best_class_accuracies: dict[str, float | None] = {}
    teachers: list[str] = []
    temperature: float = 1.0
    seed: int
    workers: int = 1
    sha256: str
    versions: dict[str, str]


def located(model: str | Path | None) -> Path:
    """The folder of a finished run: the one that is named, or that of a model of the package.

    Args:
        model: The run's folder, or the name of a model of the package, before which a folder that
            is there goes; None for the package's first choice, whatever folders are there.

    Raises:
        RunError: None is named, and the package was installed without its models.
    """
    if model is None:
        folder = PRETRAINED / SHIPPED
        if not storage.is_file(folder / INFO):
            raise RunError(f"{folder}: is missing; install the package again, or name a --model")
        return folder
    folder, shipped = storage.path(model), PRETRAINED / str(model)
    return shipped if not storage.exists(folder) and (shipped / INFO).is_file() else folder


def servable(
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
    with storage.replacing(path) as temporary:
        model.save(temporary)


def digest(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> RunInfo:
    """Reads what a finished run says of its model.

    Raises:
        RunError: The folder is no finished run, or what it says is damaged.
    """
    if not storage.is_file(folder / INFO):
        what = "is a file, not a run's folder" if storage.is_file(folder) else "no such folder"
        if storage.is_folder(folder):
            begun = storage.exists(folder / publication.BEGUN)
            what = "its training has not finished" if begun else "holds no trained model"
        shipped = " or ".join(sorted(path.parent.name for path in PRETRAINED.glob(f"*/{INFO}")))
        raise RunError(
            f"{folder}: {what} (no {INFO}); make one with the train job, or name {shipped}"
        )
    return storage.read_described(folder / INFO, RunInfo, FORMAT_VERSION, RunError, "is damaged")


def read_model(folder: Path) -> tuple[RunInfo, bytes]:
    """Reads a finished run: what it says, and the content of its `model.keras`, verified.

    Raises:
        RunError: The folder is no finished run, or is damaged.
    """
    info = read(folder)
    try:
        content = storage.read_bytes(folder / MODEL)
    except StorageError as error:
        raise RunError(str(error)) from error
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise RunError(f"{folder / MODEL}: is not the file that {INFO} describes; train again")
    return info, content


def load(folder: Path) -> tuple[keras.Model, RunInfo]:
    """Loads a finished run's model.

    Raises:
        RunError: The folder is no finished run, or is damaged.
    """
    info, content = read_model(folder)
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
    networks.import_layers(network)
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
            yield Path(temporary) / MODEL
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: cannot be written: {error.strerror}; TMPDIR names another"
            " folder"
        ) from error
