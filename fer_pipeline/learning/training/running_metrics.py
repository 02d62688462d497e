"""Loss and confusion matrix of training and validation, accumulated batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from fer_pipeline.learning.training import distributed
from fer_pipeline.learning.types import Tensor


@dataclass(frozen=True)
class MetricTotals:
    """Metrics over a number of images.

    Attributes:
        loss_sum: The sum of the losses of the images, in nats.
        confusion: Images by true class (row) and predicted class (column), int64.
    """

    loss_sum: float
    confusion: np.ndarray

    @property
    def image_count(self) -> int:
        """The number of images."""
        return int(self.confusion.sum())

    @property
    def means(self) -> dict[str, float]:
        """The means `loss` and `accuracy`, NaN without images."""
        images, correct = self.image_count or math.nan, int(self.confusion.trace())
        return {"loss": self.loss_sum / images, "accuracy": correct / images}


class RunningMetrics:
    """Metrics that are accumulated over batches, and summed over all workers.

    Attributes:
        variables: The sums of this process.
    """

    def __init__(self, class_count: int) -> None:
        """Create empty sums.

        Args:
            class_count: Number of classes.
        """
        # In float64 the sum hardly depends on its order and on the assignment to workers.
        self._loss = keras.Variable(0.0, dtype="float64", trainable=False, name="loss")
        counts = np.zeros((class_count, class_count))
        self._confusion = keras.Variable(counts, dtype="int64", trainable=False, name="confusion")
        self.variables = [self._loss, self._confusion]

    def update(self, losses: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Add a batch.

        Args:
            losses: Loss of each image, of shape (n,).
            labels: Classes of shape (n,), or distributions of shape (n, classes), of which the
                most probable class counts. Images with a negative label are ignored.
            logits: Outputs of the network, of shape (n, classes).
        """
        if not labels.dtype.is_integer:
            labels = tf.argmax(labels, axis=1)
        class_count = self._confusion.shape[0]
        true = tf.one_hot(labels, class_count, dtype=tf.int32)
        predicted = tf.one_hot(tf.argmax(logits, axis=1), class_count, dtype=tf.int32)
        counted_losses = tf.where(labels >= 0, tf.cast(losses, tf.float64), 0)
        self._loss.assign_add(tf.reduce_sum(counted_losses))
        self._confusion.assign_add(tf.cast(tf.matmul(true, predicted, transpose_a=True), tf.int64))

    def compute_totals(self) -> MetricTotals:
        """Return the totals over all workers; every worker must call this."""
        loss, confusion = distributed.all_reduce_sum(
            [np.asarray(variable) for variable in self.variables]
        )
        return MetricTotals(float(loss), confusion)

    def reset(self) -> None:
        """Set all sums to 0."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))


def class_accuracies(confusion: np.ndarray) -> list[float | None]:
    """Return the accuracy of each class, 0..1; None for a class without images.

    Args:
        confusion: Confusion matrix of `MetricTotals`.
    """
    class_totals = confusion.sum(axis=1)
    return [
        int(correct) / int(total) if total else None
        for correct, total in zip(confusion.diagonal(), class_totals, strict=True)
    ]


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean of `class_accuracies` over the classes that have images."""
    accuracies = [accuracy for accuracy in class_accuracies(confusion) if accuracy is not None]
    return sum(accuracies) / len(accuracies)
