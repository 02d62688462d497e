"""Trained models on disk: their folder, their description, and their predictions.

Importing this module imports neither TensorFlow nor Keras, which would take seconds. Where they are
not installed, a model predicts with its LiteRT export.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
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
from fer_pipeline.extras import explain_missing_packages, is_installed
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat, read_document
from fer_pipeline.io.output_kinds import DEFAULT_MODEL, EXPORT_FOLDER, IN_PROGRESS_FILE, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8
from fer_pipeline.learning.inference.litert_exports import (
    read_litert_file,
    require_litert_exports,
    warn_if_not_equivalent,
)
from fer_pipeline.learning.inference.predictor import (
    PredictFn,
    make_keras_predict_fn,
    make_litert_predict_fn,
    predict_with_flip,
)
from fer_pipeline.text import find_similar_name

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)

PRETRAINED_FOLDER = Path(__file__).parents[2] / "pretrained"
"""Folder of the bundled models; each subfolder is the folder of a finished training run."""

_BATCH_SIZE = 256  # images per forward pass of `TrainedModel.predict`


class ModelInfo(BaseModel):
    """Description of a trained model; content of `model.json`.

    Attributes:
        format: Marker of this kind of file.
        format_version: Version of the file format.
        classes: Emotions in the order of the model's outputs.
        size: Height and width of the model's input images, in pixels.
        normalization: Normalisation of the pixels; part of the model.
        enhancement: Enhancement of the training images; not part of the model.
        dataset_checksum: Checksum of the dataset that the model was trained on.
        network: Name of the network, as in the setting `model.name`.
        options: Options of the network, as in the setting `model.options`.
        parameters: Number of parameters, trainable and non-trainable.
        precision: Precision of the training, `float32` or `mixed_bfloat16`.
        best_step: Number of training steps after which the network had the saved weights.
        best_restart: Index, from 0, of the restart in which the network had the saved weights. A
            run trains its network one or more times from the start; each time is a restart.
        best_accuracy: Validation accuracy of the saved weights, in [0, 1]; None without a
            validation split.
        best_class_accuracies: Validation accuracy of the saved weights for each class, in [0, 1];
            None for a class without images; empty without a validation split.
        teachers: SHA-256 of the `model.keras` of each model that was a teacher in distillation.
        temperature: Divisor of the logits (Guo et al. 2017, arXiv:1706.04599).
        seed: Seed of all random choices of the training.
        workers: Number of workers at the end of the training.
        sha256: SHA-256 of `model.keras`.
        versions: Versions of the packages that trained the model.
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
    """Return the folder of a trained model, which the user specifies by its folder or its name.

    Args:
        model: Folder of a finished training run, or the name of a bundled model, which comes with
            this package. If a folder has the name of a bundled model, the folder is used. None
            means the default bundled model.

    Returns:
        The folder. Its existence is checked only for a bundled model.

    Raises:
        RunError: The default model is requested, but the package was installed without it.
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
    """Return whether a folder belongs to a bundled model, which comes with this package."""
    return folder.resolve().is_relative_to(PRETRAINED_FOLDER.resolve())


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_model_info(folder: Path) -> ModelInfo:
    """Read the description of a trained model, `model.json`.

    Args:
        folder: Folder of a finished training run.

    Raises:
        RunError: The folder does not contain a finished run, or `model.json` is damaged.
        StorageError: `model.json` cannot be read.
    """
    path = folder / RunFile.MODEL_INFO
    if not storage.is_file(path):
        raise RunError(f"{folder}: {_explain_missing_model(folder)}")
    return read_document(path, ModelInfo, _FORMAT)


def _explain_missing_model(folder: Path) -> str:
    """Return why a folder contains no trained model, and what to do, for an error message."""
    bundled_paths = PRETRAINED_FOLDER.glob(f"*/{RunFile.MODEL_INFO}")
    names = sorted(path.parent.name for path in bundled_paths)
    problem, remedy = "holds no trained model", "create one with the train job"
    if storage.is_file(folder):
        problem = "is a file, not the folder of a run"
    elif not storage.is_folder(folder):
        problem = "no such folder"
        similar_name = find_similar_name(folder.name, names)
        if similar_name and len(folder.parts) == 1:
            return f"{problem} (no {RunFile.MODEL_INFO}); did you mean {similar_name}?"
    elif storage.exists(folder / IN_PROGRESS_FILE):
        problem = "its training has not finished"
        remedy = "continue it with the train job and --resume"
    return f"{problem} (no {RunFile.MODEL_INFO}); {remedy}, or name {' or '.join(names)}"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on disk, which is loaded when it first predicts.

    Attributes:
        folder: Folder of the finished training run.
        info: Description of the model, from `model.json`.
    """

    folder: Path
    info: ModelInfo

    @classmethod
    def open(cls, model: str | Path | None = None) -> Self:
        """Open a model: read its description, but do not load its weights yet.

        Args:
            model: Folder of a finished training run, or the name of a bundled model, which comes
                with this package. If a folder has the name of a bundled model, the folder is used.
                None means the default bundled model.

        Raises:
            RunError: The folder does not contain a finished run, its description is damaged, or
                the default bundled model is missing.
        """
        folder = resolve_model_path(model)
        return cls(folder, read_model_info(folder))

    @classmethod
    def load(cls, model: str | Path | None = None) -> Self:
        """Open a model and load its weights at once, so that the first `predict` takes less time.

        Without TensorFlow, this loads the LiteRT export of the model, see `predict`.

        Args:
            model: Folder of a finished training run, or the name of a bundled model, which comes
                with this package. If a folder has the name of a bundled model, the folder is used.
                None means the default bundled model.

        Raises:
            RunError: The folder does not contain a finished run, a file is damaged, Keras cannot
                load the model, the default bundled model is missing, or neither TensorFlow is
                installed nor has the model a LiteRT export.
            ConfigError: The module of a custom network cannot be imported.
        """
        trained_model = cls.open(model)
        _ = trained_model._predict_fn
        return trained_model

    @property
    def name(self) -> str:
        """Name of the model, which is the name of its folder without the path."""
        return self.folder.resolve().name

    @property
    def model_file(self) -> Path:
        """Path of `model.keras`."""
        return self.folder / RunFile.MODEL

    @property
    def export_folder(self) -> Path:
        """Default folder of the model's export; whether it exists is not checked."""
        return self.folder / EXPORT_FOLDER

    @property
    def is_bundled(self) -> bool:
        """Return whether the model comes with this package."""
        return is_bundled(self.folder)

    def read_content(self) -> bytes:
        """Read the file `model.keras`, verify its checksum, and return its content.

        Raises:
            RunError: The file cannot be read, or its checksum differs from the one in `model.json`.
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

    @explain_missing_packages()
    def load_network(self) -> keras.Model:
        """Load the Keras model from `model.keras`; each call loads it anew.

        Returns:
            A model that maps raw pixels in [0, 255], of shape (n, size, size, 1), to probabilities,
            float32 of shape (n, classes).

        Raises:
            RunError: `model.keras` is damaged, or Keras cannot load it.
            ConfigError: The module of a custom network cannot be imported.
            MissingPackageError: TensorFlow is not installed.
        """
        # This imports TensorFlow, which takes seconds and which most users of this module do not
        # need.
        from fer_pipeline.learning.inference import serving_model

        return serving_model.load_model_from_bytes(self.read_content(), self.info.network)

    def predict(
        self,
        images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
        flip_tta: bool = False,
    ) -> npt.NDArray[np.float32]:
        """Predict the probabilities of the emotions in face images.

        The images are first enhanced (denoising, contrast correction) and resized like the training
        images. The first call loads the model.

        Keras runs the model. If TensorFlow is not installed, LiteRT runs the export in the model's
        folder: the one in float32, which predicts what Keras predicts up to rounding, or else the
        one in 8-bit integers.

        Args:
            images: Greyscale images, uint8 of shape (n, height, width) or (n, height, width, 1), or
                a list of such images, which may differ in size.
            flip_tta: Whether to average the probabilities of an image and its mirror image.

        Returns:
            Probabilities, float32 of shape (n, classes), in the order of `info.classes`.

        Raises:
            ValueError: An image is empty or no array of uint8, or its shape is neither (height,
                width) nor (height, width, 1); or `images` is a single image.
            RunError: `model.keras` is damaged, or Keras cannot load it; or TensorFlow is not
                installed, and the model has no LiteRT export, or a damaged one.
            ConfigError: The module of a custom network cannot be imported.
        """
        if isinstance(images, np.ndarray) and images.ndim == 2:
            raise ValueError("expected several images, got one; pass a list: predict([image])")
        if not len(images):
            return np.zeros((0, len(self.info.classes)), np.float32)
        pixels = np.stack([self._prepare_image(image, index) for index, image in enumerate(images)])
        if flip_tta:
            return predict_with_flip(self._predict_fn, pixels)
        return self._predict_fn(pixels)

    @functools.cached_property
    def _predict_fn(self) -> PredictFn:
        """Function that maps resized images to probabilities; the first access loads the model."""
        if is_installed("tensorflow"):
            return make_keras_predict_fn(self.load_network(), self.info.size, _BATCH_SIZE)
        exports = require_litert_exports(self)
        # The one in float32 predicts what Keras predicts, up to rounding.
        export = exports.get(LITERT) or exports[LITERT_INT8]
        warn_if_not_equivalent(export)
        log.info("TensorFlow is not installed: using the export %s of %s", export.format, self.name)
        content = read_litert_file(self, export)
        return make_litert_predict_fn(content, _BATCH_SIZE, os.cpu_count() or 1)

    def _prepare_image(self, image: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.uint8]:
        """Enhance an image like the training images and resize it to the model's input size.

        Args:
            image: Greyscale image, uint8 of shape (height, width) or (height, width, 1).
            index: Index of the image among the images to predict, for the error message.

        Returns:
            The prepared image, uint8 of shape (size, size).

        Raises:
            ValueError: The dtype or the shape is invalid, or the image is empty.
        """
        expected = f"image {index}: expected uint8 of shape (height, width) or (height, width, 1)"
        if not isinstance(image, np.ndarray):
            raise ValueError(f"{expected}, got {type(image).__name__}")
        grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        if grey.dtype != np.uint8 or grey.ndim != 2 or not grey.size:
            raise ValueError(f"{expected}, got {image.dtype} of shape {image.shape}")
        return resize(enhance(grey, self.info.enhancement), self.info.size)
