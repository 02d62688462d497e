"""Distillation: trained models as teachers, whose probabilities are a part of each target.

Hinton et al. 2015, arXiv:1503.02531, with the images that the student sees, augmented (Beyer et al.
2022, arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from fer_pipeline.config.training import DistillationConfig
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.learning.types import Tensor


class TeacherEnsemble:
    """Several trained models that take turns: one of them predicts at each step.

    The loss is linear in its target. Over some steps this teaches the same as the mean of all
    predictions would, at the cost of one.
    """

    def __init__(self, models: Sequence[keras.Model]) -> None:
        """Create the ensemble.

        Args:
            models: Models from normalized pixels to probabilities; at least one.
        """
        self._models = list(models)

    def __call__(self, images: Tensor, step: Tensor) -> Tensor:
        """Return the probabilities of the teacher of a step, float32 of shape (n, classes).

        Args:
            images: Normalized and augmented images, float32 of shape (n, size, size, 1).
            step: Number of steps before this one, an integer scalar.
        """

        def bind(model: keras.Model) -> Callable[[], Tensor]:
            return lambda: model(images, training=False)

        turn = tf.cast(step % len(self._models), tf.int32)
        return tf.switch_case(turn, [bind(model) for model in self._models])


def load_teachers(config: DistillationConfig, dataset: StoredDataset) -> TeacherEnsemble | None:
    """Load the teachers, each in the precision of its training; None if there are none.

    Args:
        config: The section `training.distillation`.
        dataset: The dataset on which the student is trained.

    Raises:
        RunError: A teacher is no finished run, or is damaged.
        ConfigError: A teacher has other images or classes than the dataset.
    """
    models = []
    for name in config.teachers:
        teacher = TrainedModel.open(name)
        model = teacher.load_network()
        _require_compatible(name, teacher.info, dataset)
        normalized_pixels = model.get_layer(serving_model.NORMALIZATION_LAYER).output
        models.append(keras.Model(normalized_pixels, model.output))
    return TeacherEnsemble(models) if models else None


def read_teacher_checksum(name: str) -> str:
    """Return the SHA-256 of a teacher's model, in hexadecimal digits.

    Args:
        name: Folder of a run, or name of a model of the package.

    Raises:
        RunError: It is no finished run.
    """
    return TrainedModel.open(name).info.sha256


def _require_compatible(name: str, info: ModelInfo, dataset: StoredDataset) -> None:
    image = dataset.manifest.image
    properties: dict[str, tuple[Any, Any]] = {
        "classes": (info.classes, dataset.classes),
        "image size": (info.size, image.size),
        "normalization": (info.normalization, image.normalization),
        "enhancement": (info.enhancement, image.enhancement),
    }
    differing = [label for label, (teacher, student) in properties.items() if teacher != student]
    if differing:
        raise ConfigError(
            f"training.distillation.teachers: {name} was trained with a different"
            f" {', '.join(differing)} than the dataset has; teachers must see the same images as"
            " the network"
        )
