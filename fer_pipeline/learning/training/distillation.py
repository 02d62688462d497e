"""Distillation: training targets that include the probabilities of trained models, the teachers.

Hinton et al. 2015, arXiv:1503.02531. The teachers get the same augmented images as the student
(Beyer et al. 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from fer_pipeline.config.training import DistillationConfig
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.training import teachers
from fer_pipeline.learning.types import Tensor


class TeacherEnsemble:
    """An ensemble of teacher models, which take turns: one model predicts at each step.

    The loss is linear in its target. Over many steps, taking turns therefore has the same effect as
    the mean of the predictions of all models, at the cost of one prediction per step.
    """

    def __init__(self, models: Sequence[keras.Model]) -> None:
        """Create the ensemble.

        Args:
            models: One or more models that map normalised pixels to probabilities.
        """
        self._models = list(models)

    def __call__(self, images: Tensor, step: Tensor) -> Tensor:
        """Return the probabilities of the teacher whose turn it is, float32 of shape (n, classes).

        Args:
            images: Normalised and augmented images, float32 of shape (n, size, size, 1).
            step: Number of completed training steps, an integer scalar. Modulo the number of
                teachers, it is the index of the teacher.
        """

        def make_predict_fn(model: keras.Model) -> Callable[[], Tensor]:
            """Return a function without arguments that returns a teacher's probabilities."""
            return lambda: model(images, training=False)

        model_index = tf.cast(step % len(self._models), tf.int32)
        return tf.switch_case(model_index, [make_predict_fn(model) for model in self._models])


def load_teachers(config: DistillationConfig, dataset: StoredDataset) -> TeacherEnsemble | None:
    """Load the configured teachers, each in the precision in which it was trained.

    The loaded models take normalised pixels, because their own normalization layer is left out.

    Args:
        config: The section `training.distillation` of the configuration.
        dataset: Dataset on which the student is trained.

    Returns:
        The ensemble of teachers, or None if no teacher is configured.

    Raises:
        RunError: A teacher is not a finished run, or its files are damaged.
        ConfigError: The images or classes of a teacher differ from those of the dataset.
    """
    models = []
    for teacher in teachers.open_teachers(config, dataset):
        model = teacher.load_network()
        normalized_pixels = model.get_layer(serving_model.NORMALIZATION_LAYER).output
        models.append(keras.Model(normalized_pixels, model.output))
    return TeacherEnsemble(models) if models else None
