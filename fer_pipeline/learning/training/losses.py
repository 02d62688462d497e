"""The training loss: smoothed, distilled and class-weighted cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.input.targets import one_hot_encode
from fer_pipeline.learning.types import Tensor


class ClassificationLoss:
    """The loss of each image.

    The smoothed target is (1 - s) * target + s / classes (Szegedy et al. 2016, section 7). With
    teachers the target is (1 - w) * smoothed target + w * teacher probabilities (Hinton et al.
    2015). Class weights follow Keras's `class_weight`: the loss of an image is multiplied by the
    weight of its class, and the loss of a batch is the sum of these losses divided by the number of
    images.

    Attributes:
        class_count: Number of classes.
    """

    def __init__(
        self,
        class_count: int,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        distillation_weight: float = 0.0,
    ) -> None:
        """Create the loss.

        Args:
            class_count: Number of classes.
            label_smoothing: Share s of each target that is distributed among all classes, 0..1.
            class_weights: Weight of each class; None for 1.
            distillation_weight: Share w of each target that comes from teachers, 0..1.
        """
        self.class_count = class_count
        self._smoothing, self._distillation_weight = label_smoothing, distillation_weight
        self._class_weights = (
            None if class_weights is None else tf.constant(class_weights, tf.float32)
        )

    def __call__(
        self, labels: Tensor, logits: Tensor, teacher_probabilities: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each image in nats, float32 of shape (n,).

        Args:
            labels: Classes, int32 of shape (n,), or distributions over them, float32 of shape
                (n, classes).
            logits: Outputs of the network, of shape (n, classes).
            teacher_probabilities: Probabilities of the teachers, of shape (n, classes); None
                without teachers.
        """
        logits = tf.cast(logits, tf.float32)
        is_plain = labels.dtype.is_integer and not self._smoothing and teacher_probabilities is None
        if is_plain:
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        else:
            smoothed = one_hot_encode(labels, self.class_count) * (1 - self._smoothing)
            target = smoothed + self._smoothing / self.class_count
            if teacher_probabilities is not None:
                weight = self._distillation_weight
                target = (1 - weight) * target + weight * teacher_probabilities
            losses = keras.losses.categorical_crossentropy(target, logits, from_logits=True)
        if self._class_weights is None:
            return losses
        return losses * tf.linalg.matvec(
            one_hot_encode(labels, self.class_count), self._class_weights
        )


def compute_class_weights(
    setting: str | Mapping[str, float] | None, counts: Mapping[str, int]
) -> list[float] | None:
    """Return the weight of each class, in the order of the counts; None for no weights.

    Args:
        setting: `balanced`, or weights by class name, where missing names have weight 1; None for
            no weights.
        counts: Training rows by class, in the order of the labels.

    Returns:
        For `balanced`, rows / (classes * rows of the class), as scikit-learn defines it; a class
        without rows has 0.

    Raises:
        ConfigError: A name is no class of the dataset.
    """
    if setting is None:
        return None
    if isinstance(setting, str):
        mean_count = sum(counts.values()) / len(counts)
        return [mean_count / count if count else 0.0 for count in counts.values()]
    unknown = [name for name in setting if name not in counts]
    if unknown:
        raise ConfigError(
            f"training.class_weights: {', '.join(unknown)} is no class of the dataset; it has"
            f" {', '.join(counts)}"
        )
    return [float(setting.get(name, 1.0)) for name in counts]
