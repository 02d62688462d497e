"""What training minimises: the cross-entropy of each image, smoothed, taught and weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.types import Tensor


class ClassificationLoss:
    """The loss of each image.

    The smoothed target is (1 - s) * target + s / classes (Szegedy et al. 2016, section 7); where
    teachers speak, it is (1 - t) * that + t * their answer (Hinton et al. 2015). Weights
    follow Keras's `class_weight`: the loss of an image is multiplied by its class's weight, and the
    loss of a batch is the sum of these, divided by the number of its images.

    Attributes:
        classes: How many there are.
    """

    def __init__(
        self,
        classes: int,
        label_smoothing: float = 0.0,
        weights: Sequence[float] | None = None,
        taught: float = 0.0,
    ) -> None:
        """Takes what is asked for.

        Args:
            classes: How many there are.
            label_smoothing: The part s of each target that is shared among all classes, 0..1.
            weights: Of each class; None for 1.
            taught: The part t of each target that teachers give, 0..1.
        """
        self.classes, self._smoothing, self._taught = classes, label_smoothing, taught
        self._weights = None if weights is None else tf.constant(weights, tf.float32)

    def __call__(self, labels: Tensor, logits: Tensor, answers: Tensor | None = None) -> Tensor:
        """The loss of each image in nats, float32 of shape (n,).

        Args:
            labels: Classes, int32 of shape (n,), or distributions over them, float32 of shape
                (n, classes).
            logits: Of shape (n, classes).
            answers: What teachers say, probabilities of shape (n, classes); None for no teachers.
        """
        logits = tf.cast(logits, tf.float32)
        if labels.dtype.is_integer and not self._smoothing and answers is None:
            losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        else:
            smoothed = one_hot_targets(labels, self.classes) * (1 - self._smoothing)
            target = smoothed + self._smoothing / self.classes
            if answers is not None:
                target = (1 - self._taught) * target + self._taught * answers
            losses = keras.losses.categorical_crossentropy(target, logits, from_logits=True)
        if self._weights is None:
            return losses
        return losses * tf.linalg.matvec(one_hot_targets(labels, self.classes), self._weights)


def one_hot_targets(labels: Tensor, classes: int) -> Tensor:
    """Labels as distributions: float32 of shape (n, classes).

    Args:
        labels: Classes, integers of shape (n,), or distributions already.
        classes: How many there are.
    """
    return tf.one_hot(labels, classes) if labels.dtype.is_integer else labels


def compute_class_weights(
    chosen: str | Mapping[str, float] | None, counts: Mapping[str, int]
) -> list[float] | None:
    """The weight of each class, in the order of the counts.

    Args:
        chosen: `balanced`, or the weights by name, 1 where not given; None for no weights.
        counts: Training rows by class, in the order of the labels.

    Returns:
        For `balanced`, rows / (classes * rows of the class), as scikit-learn defines it; a class
        without rows has 0.

    Raises:
        ConfigError: A name is no class of the dataset.
    """
    if chosen is None:
        return None
    if isinstance(chosen, str):
        share = sum(counts.values()) / len(counts)
        return [share / count if count else 0.0 for count in counts.values()]
    strange = [name for name in chosen if name not in counts]
    if strange:
        raise ConfigError(
            f"training.class_weights: {', '.join(strange)} is no class of the dataset; it has"
            f" {', '.join(counts)}"
        )
    return [float(chosen.get(name, 1.0)) for name in counts]
