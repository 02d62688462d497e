"""The teachers of a distillation: trained models that must fit the dataset of their student."""

from __future__ import annotations

from typing import Any

from fer_pipeline.config.training import DistillationConfig
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel


def open_teachers(config: DistillationConfig, dataset: StoredDataset) -> list[TrainedModel]:
    """Open the configured teachers, whose weights are not read yet.

    Args:
        config: The section `training.distillation` of the configuration.
        dataset: Dataset on which the student is trained.

    Raises:
        RunError: A teacher is not a finished run.
        ConfigError: The images or classes of a teacher differ from those of the dataset.
    """
    teachers = [TrainedModel.open(name) for name in config.teachers]
    for name, teacher in zip(config.teachers, teachers, strict=True):
        _require_compatible_teacher(name, teacher.info, dataset)
    return teachers


def read_teacher_checksum(name: str) -> str:
    """Return the SHA-256 of a teacher's model file, in hexadecimal digits.

    Args:
        name: Folder of a run, or name of a pretrained model of the package.

    Raises:
        RunError: The folder does not contain a finished run.
    """
    return TrainedModel.open(name).info.sha256


def _require_compatible_teacher(name: str, teacher_info: ModelInfo, dataset: StoredDataset) -> None:
    """Check that a teacher was trained with the same classes and kind of images as the student.

    Args:
        name: Name of the teacher, for the message.
        teacher_info: Description of the teacher.
        dataset: Dataset on which the student is trained.

    Raises:
        ConfigError: The classes, image size, normalization or enhancement differ.
    """
    image = dataset.manifest.image
    properties: dict[str, tuple[Any, Any]] = {
        "classes": (teacher_info.classes, dataset.classes),
        "image size": (teacher_info.size, image.size),
        "normalization": (teacher_info.normalization, image.normalization),
        "enhancement": (teacher_info.enhancement, image.enhancement),
    }
    differing = [label for label, (teacher, student) in properties.items() if teacher != student]
    if differing:
        raise ConfigError(
            f"training.distillation.teachers: {name} was trained with a different"
            f" {', '.join(differing)} than the dataset has; teachers must see the same images as"
            " the network"
        )
