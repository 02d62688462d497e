"""A finished training run on disk: where it is, and what is known of its model.

Needs neither TensorFlow nor Keras, which take seconds to import.
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

from fer_pipeline.data import images as image_functions
from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat, read_document
from fer_pipeline.io.output_kinds import DEFAULT_MODEL, EXPORT_FOLDER, IN_PROGRESS_FILE, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference.predictor import Predict, with_keras

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)

_BATCH_SIZE = 256  # images in a forward pass of `TrainedModel.predict`

PRETRAINED = Path(__file__).parents[2] / "pretrained"
"""The folder of the models that come with the package: the finished run of each, by its name."""


class ModelInfo(BaseModel):
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
        best_restart: In which of several restarts, from 0.
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
    """The folder of a finished run: the one that is named, or that of a model of the package.

    Args:
        model: The run's folder, or the name of a model of the package, before which a folder that
            is there goes; None for the package's first choice, whatever folders are there.

    Raises:
        RunError: None is named, and the package was installed without its models.
    """
    if model is None:
        folder = PRETRAINED / DEFAULT_MODEL
        if not storage.is_file(folder / RunFile.MODEL_INFO):
            raise RunError(f"{folder}: is missing; install the package again, or name a --model")
        return folder
    folder = parse_path(model)
    shipped = PRETRAINED / str(model)
    is_name = not storage.exists(folder) and (shipped / RunFile.MODEL_INFO).is_file()
    return shipped if is_name else folder


def is_shipped(run: Path) -> bool:
    """Whether a run's folder is one of those that come with the package."""
    return run.resolve().is_relative_to(PRETRAINED.resolve())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> ModelInfo:
    """Reads what a finished run says of its model.

    Raises:
        RunError: The folder is no finished run, or what it says is damaged.
    """
    if not storage.is_file(folder / RunFile.MODEL_INFO):
        what = "is a file, not a run's folder" if storage.is_file(folder) else "no such folder"
        if storage.is_folder(folder):
            begun = storage.exists(folder / IN_PROGRESS_FILE)
            what = "its training has not finished" if begun else "holds no trained model"
        shipped = " or ".join(
            sorted(path.parent.name for path in PRETRAINED.glob(f"*/{RunFile.MODEL_INFO}"))
        )
        raise RunError(
            f"{folder}: {what} (no {RunFile.MODEL_INFO}); make one with the train job, or name"
            f" {shipped}"
        )
    return read_document(folder / RunFile.MODEL_INFO, ModelInfo, _FORMAT)


def read_model(folder: Path) -> tuple[ModelInfo, bytes]:
    """Reads a finished run: what it says, and the content of its `model.keras`, verified.

    Raises:
        RunError: The folder is no finished run, or is damaged.
    """
    info = read(folder)
    try:
        content = storage.read_bytes(folder / RunFile.MODEL)
    except StorageError as error:
        raise RunError(str(error)) from error
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise RunError(
            f"{folder / RunFile.MODEL}: is not the file that {RunFile.MODEL_INFO} describes;"
            " train again"
        )
    return info, content


@dataclass(frozen=True)
class TrainedModel:
    """A trained model on disk: the folder of its run, and the description of the model.

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
        return cls(folder, read(folder))

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
        _ = trained._predict_pixels
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
        """Whether the model is one of those that come with the package."""
        return is_shipped(self.folder)

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

        return serving_model.from_bytes(self.read_content(), self.info.network)

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
        pixels = np.stack([self._prepare(image, row) for row, image in enumerate(images)])
        run = self._predict_pixels
        return image_functions.predict_with_flip(run, pixels) if flip_tta else run(pixels)

    @functools.cached_property
    def _predict_pixels(self) -> Predict:
        return with_keras(self.load_network(), self.info.size, _BATCH_SIZE)

    def _prepare(self, image: npt.NDArray[np.uint8], row: int) -> npt.NDArray[np.uint8]:
        """Return an image enhanced and of shape (size, size)."""
        grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        if grey.dtype != np.uint8 or grey.ndim != 2 or not grey.size:
            raise ValueError(
                f"image {row}: expected uint8 of shape (height, width) or (height, width, 1),"
                f" got {image.dtype} of shape {image.shape}"
            )
        return image_functions.resize(enhance(grey, self.info.enhancement), self.info.size)
