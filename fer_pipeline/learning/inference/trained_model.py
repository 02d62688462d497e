"""Trained models on disk: their folder, their description, and their predictions.

This module needs neither TensorFlow nor Keras, which take seconds to import.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat, read_document
from fer_pipeline.io.output_kinds import DEFAULT_MODEL, EXPORT_FOLDER, IN_PROGRESS_FILE, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference.predictor import (
    PredictFn,
    make_keras_predict_fn,
    predict_with_flip,
)

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)

PRETRAINED_FOLDER = Path(__file__).parents[2] / "pretrained"
"""Folder of the bundled models: the folder of a finished run for each, by name."""

_BATCH_SIZE = 256  # images in a forward pass of `TrainedModel.predict`


class ModelInfo(BaseModel):
    """Description of a trained model; content of `model.json`.

    Attributes:
        classes: Emotions in the order of the model's outputs.
        size: Side of the images that the model takes, in pixels.
        normalization: Normalisation of the pixels, which the model itself applies.
        enhancement: Enhancement of the training images, which the model does not apply.
        dataset_checksum: Checksum of the dataset that it was trained on.
        network: Name of its network in the configuration.
        options: Options of its network in the configuration.
        parameters: Number of parameters.
        precision: Precision of the training, `float32` or `mixed_bfloat16`.
        best_step: Step after which its weights were the best, or the last step.
        best_restart: Number of the restart with these weights, from 0.
        best_accuracy: Validation accuracy of these weights; None without a validation split.
        best_class_accuracies: The same by class; empty without a validation split.
        teachers: SHA-256 of each model that was its teacher.
        temperature: Divisor of its logits (Guo et al. 2017, arXiv:1706.04599).
        seed: Seed of all random choices.
        workers: Number of workers at the end of the training.
        sha256: SHA-256 of `model.keras`.
        versions: Versions of the packages that trained it.
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
    best_restart: int = 0
    best_accuracy: float | None
    best_class_accuracies: dict[str, float | None] = {}
    teachers: list[str] = []
    temperature: float = 1.0
    seed: int
    workers: int = 1
    sha256: str
    versions: dict[str, str]


def resolve_model_path(model: str | Path | None) -> Path:
    """Return the folder of a model.

    Args:
        model: Folder of a finished run, or the name of a bundled model; an existing folder of that
            name wins. None is the default bundled model.

    Raises:
        RunError: The default model is requested, and the package was installed without it.
    """
    if model is None:
        folder = PRETRAINED_FOLDER / DEFAULT_MODEL
        if not storage.is_file(folder / RunFile.MODEL_INFO):
            raise RunError(f"{folder}: is missing; reinstall the package, or name a --model")
        return folder
    folder = parse_path(model)
    bundled = PRETRAINED_FOLDER / str(model)
    is_name = not storage.exists(folder) and (bundled / RunFile.MODEL_INFO).is_file()
    return bundled if is_name else folder


def is_bundled(folder: Path) -> bool:
    """Return whether a folder is that of a bundled model."""
    return folder.resolve().is_relative_to(PRETRAINED_FOLDER.resolve())


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_model_info(folder: Path) -> ModelInfo:
    """Read the description of a model.

    Args:
        folder: Folder of a finished run.

    Raises:
        RunError: The folder is no finished run, or the description is damaged.
    """
    path = folder / RunFile.MODEL_INFO
    if not storage.is_file(path):
        bundled = PRETRAINED_FOLDER.glob(f"*/{RunFile.MODEL_INFO}")
        raise RunError(
            f"{folder}: {_explain_missing_model(folder)} (no {RunFile.MODEL_INFO}); create one"
            f" with the train job, or name {' or '.join(sorted(p.parent.name for p in bundled))}"
        )
    return read_document(path, ModelInfo, _FORMAT)


def _explain_missing_model(folder: Path) -> str:
    if storage.is_file(folder):
        return "is a file, not the folder of a run"
    if not storage.is_folder(folder):
        return "no such folder"
    if storage.exists(folder / IN_PROGRESS_FILE):
        return "its training has not finished"
    return "holds no trained model"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on disk.

    Attributes:
        folder: Folder of the finished training run.
        info: Description of the model, from `model.json`.
    """

    folder: Path
    info: ModelInfo

    @classmethod
    def open(cls, model: str | Path | None = None) -> Self:
        """Open a model: read its description, but not its weights.

        Args:
            model: Folder of a finished run, or the name of a bundled model; an existing folder of
                that name wins. None is the default bundled model.

        Raises:
            RunError: The folder is no finished run or is damaged, or there is no bundled model.
        """
        folder = resolve_model_path(model)
        return cls(folder, read_model_info(folder))

    @classmethod
    def load(cls, model: str | Path | None = None) -> Self:
        """Open a model and load its network, so that `predict` starts at once.

        Args:
            model: As for `open`.

        Raises:
            RunError: The folder is no finished run or is damaged, or Keras cannot load the model.
            ConfigError: The network's module cannot be imported.
        """
        trained = cls.open(model)
        _ = trained._predict_fn
        return trained

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.folder.resolve().name

    @property
    def model_file(self) -> Path:
        """Path of `model.keras`."""
        return self.folder / RunFile.MODEL

    @property
    def export_folder(self) -> Path:
        """Folder of the model's export, which need not exist."""
        return self.folder / EXPORT_FOLDER

    @property
    def is_bundled(self) -> bool:
        """Return whether the model is a bundled one."""
        return is_bundled(self.folder)

    def read_content(self) -> bytes:
        """Return the content of `model.keras`, verified by its checksum.

        Raises:
            RunError: The file is missing or is not the one that `model.json` describes.
        """
        try:
            content = storage.read_bytes(self.model_file)
        except StorageError as error:
            raise RunError(str(error)) from error
        if hashlib.sha256(content).hexdigest() != self.info.sha256:
            raise RunError(
                f"{self.model_file}: is not the file that {RunFile.MODEL_INFO} describes;"
                " train again"
            )
        return content

    def load_network(self) -> keras.Model:
        """Load the Keras model.

        Returns:
            A model from raw pixels, 0..255 of shape (n, size, size, 1), to probabilities of shape
            (n, classes).

        Raises:
            RunError: `model.keras` is damaged, or Keras cannot load it.
            ConfigError: The network's module cannot be imported.
        """
        # Imports TensorFlow, which takes seconds and which most users of this module do not need.
        from fer_pipeline.learning.inference import serving_model

        return serving_model.load_model_content(self.read_content(), self.info.network)

    def predict(
        self,
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        flip_tta: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Return the probabilities of the emotions that images show.

        Args:
            images: Grey images, uint8 of shape (n, height, width) or (n, height, width, 1), or a
                list of such images of any sizes. They are enhanced and resized as the training
                images were.
            flip_tta: Whether to average the probabilities of an image and its mirror image.

        Returns:
            Probabilities, float32 of shape (n, classes), in the order of `info.classes`.

        Raises:
            ValueError: An image is not uint8, or has another number of dimensions or channels.
            RunError: `model.keras` is damaged, or Keras cannot load it.
        """
        if not len(images):
            return np.zeros((0, len(self.info.classes)), np.float32)
        pixels = np.stack([self._prepare(image, index) for index, image in enumerate(images)])
        if flip_tta:
            return predict_with_flip(self._predict_fn, pixels)
        return self._predict_fn(pixels)

    @functools.cached_property
    def _predict_fn(self) -> PredictFn:
        return make_keras_predict_fn(self.load_network(), self.info.size, _BATCH_SIZE)

    def _prepare(self, image: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
        """Return an image enhanced and of shape (size, size)."""
        grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        if grey.dtype != np.uint8 or grey.ndim != 2 or not grey.size:
            raise ValueError(
                f"image {index}: expected uint8 of shape (height, width) or (height, width, 1),"
                f" got {image.dtype} of shape {image.shape}"
            )
        return resize(enhance(grey, self.info.enhancement), self.info.size)
