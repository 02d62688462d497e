"""Trained models as teachers: a part of the target of each image is what they say of it.

Hinton et al. 2015, arXiv:1503.02531, with the images as the pupil sees them, augmented (Beyer et
al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from fer_pipeline.config.training import DistillationConfig
from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.model import bundle, run_folder
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.manifest import Manifest

Tensor = Any


class Teachers:
    """Several trained models, of which one answers at each step, in turn.

    A loss is linear in its target: over some steps that teaches what the mean of all their answers
    would, at the price of one.
    """

    def __init__(self, models: Sequence[keras.Model]) -> None:
        """Takes the models.

        Args:
            models: From normalised pixels to probabilities; at least one.
        """
        self._models = list(models)

    def __call__(self, images: Tensor, step: Tensor) -> Tensor:
        """What the teacher of a step says: probabilities, float32 of shape (n, classes).

        Args:
            images: Normalised and augmented, float32 of shape (n, size, size, 1).
            step: How many steps were made before, an integer scalar.
        """

        def answer(model: keras.Model) -> Any:
            return lambda: model(images, training=False)

        turn = tf.cast(step % len(self._models), tf.int32)
        return tf.switch_case(turn, [answer(model) for model in self._models])


def load(chosen: DistillationConfig, made: Manifest) -> Teachers | None:
    """Loads the teachers, in the precision that each was trained in; None where there are none.

    Args:
        chosen: What is asked for.
        made: The manifest of the dataset that they are to speak of.

    Raises:
        RunError: One is no finished run, or is damaged.
        ConfigError: One takes other images, or knows other classes.
    """
    found = []
    for name in chosen.teachers:
        model, info = bundle.load(run_folder.located(name))
        _require_fitting(name, info, made)
        found.append(keras.Model(model.get_layer(bundle.NORMALIZATION).output, model.output))
    return Teachers(found) if found else None


def checksum(name: str) -> str:
    """The SHA-256 of a teacher's model.

    Raises:
        RunError: It is no finished run.
    """
    return run_folder.read(run_folder.located(name)).sha256


def _require_fitting(name: str, info: RunInfo, made: Manifest) -> None:
    image = made.image
    asked: dict[str, tuple[Any, Any]] = {
        "classes": (info.classes, made.classes),
        "image size": (info.size, image.size),
        "normalization": (info.normalization, image.normalization),
        "enhancement": (info.enhancement, image.enhancement),
    }
    others = [what for what, (one, other) in asked.items() if one != other]
    if others:
        raise ConfigError(
            f"training.distillation.teachers: {name} was trained with another {', '.join(others)}"
            " than the dataset has; teachers see the images that the network sees"
        )
