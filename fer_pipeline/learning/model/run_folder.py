"""A finished training run on disk: where it is, and what is known of its model.

Needs neither TensorFlow nor Keras, which take seconds to import.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fer_pipeline import publication, storage
from fer_pipeline.enhancement import Enhancement
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.pixels import Normalization
from fer_pipeline.publication import SHIPPED

MODEL, INFO, EXPORTS = "model.keras", "model.json", "export"

FORMAT_VERSION = 2
_FORMAT = storage.FileFormat(
    version=FORMAT_VERSION,
    error=RunError,
    invalid="is damaged",
    upgrade=publication.UPGRADE_RUN,
)

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


def is_shipped(run: Path) -> bool:
    """Whether a run's folder is one of those that come with the package."""
    return run.resolve().is_relative_to(PRETRAINED.resolve())


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
    return storage.read_described(folder / INFO, RunInfo, _FORMAT)


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
