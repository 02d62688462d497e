"""The training loss: cross-entropy with label smoothing, distillation and class weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from fer_pipeline.learning.input.targets import one_hot_encode
from fer_pipeline.learning.types import Tensor


class ClassificationLoss:
    """The training loss, computed for each image.

    The smoothed target is (1 - s) * target + s / classes (Szegedy et al. 2016, section 7). With
    teachers, the target is (1 - w) * smoothed target + w * teacher probabilities (Hinton et al.
    2015). Class weights work like Keras's `class_weight`: the loss of an image is multiplied by the
    weight of its class, and the loss of a batch is the sum of these losses divided by the number of
    images. If the label is a distribution, the weight is the mean of the class weights under this
    distribution.

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
            label_smoothing: Smoothing factor s, in [0, 1].
            class_weights: Weight of each class; None if all classes have weight 1.
            distillation_weight: Weight w of the teacher probabilities, in [0, 1].
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
            labels: Class indices, int32 of shape (n,), or distributions over the classes, float32
                of shape (n, classes).
            logits: Outputs of the network, of shape (n, classes).
            teacher_probabilities: Probabilities of the teachers, of shape (n, classes); None if
                there are no teachers.
        """
        logits = tf.cast(logits, tf.float32)
        has_hard_targets = (
            labels.dtype.is_integer and not self._smoothing and teacher_probabilities is None
        )
        if has_hard_targets:
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
