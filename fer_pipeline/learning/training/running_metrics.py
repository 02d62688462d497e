"""Loss and confusion matrix of training and validation, accumulated over batches."""

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
    """The summed loss and the confusion matrix of a number of images.

    Attributes:
        loss_sum: Sum of the losses of the images, in nats.
        confusion: Confusion matrix: number of images by true class (row) and predicted class
            (column), int64 of shape (classes, classes).
    """

    loss_sum: float
    confusion: np.ndarray

    @property
    def image_count(self) -> int:
        """The number of images."""
        return int(self.confusion.sum())

    @property
    def means(self) -> dict[str, float]:
        """The mean loss and the accuracy, under the keys `loss` and `accuracy`.

        Both are NaN if there are no images.
        """
        image_count = self.image_count or math.nan
        correct_count = int(self.confusion.trace())
        return {"loss": self.loss_sum / image_count, "accuracy": correct_count / image_count}


class RunningMetrics:
    """The loss and confusion matrix, accumulated over batches and then summed over all workers.

    Attributes:
        variables: Keras variables with this worker's sum of losses and its confusion matrix.
    """

    def __init__(self, class_count: int) -> None:
        """Create the variables with the value 0.

        Args:
            class_count: Number of classes.
        """
        # A float64 sum hardly depends on the order of the images and on their worker.
        self._loss = keras.Variable(0.0, dtype="float64", trainable=False, name="loss")
        counts = np.zeros((class_count, class_count))
        self._confusion = keras.Variable(counts, dtype="int64", trainable=False, name="confusion")
        self.variables = [self._loss, self._confusion]

    def update(self, losses: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Add the losses of a batch to their sum, and the predictions to the confusion matrix.

        Args:
            losses: Loss of each image, of shape (n,).
            labels: Class indices of shape (n,), or distributions of shape (n, classes). The most
                probable class of a distribution counts as the true class. Images with a negative
                label are ignored.
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
        """Return the loss sum and the confusion matrix, both added up over all workers.

        All workers must call this method at the same time.
        """
        loss, confusion = distributed.all_reduce_sum(
            [np.asarray(variable) for variable in self.variables]
        )
        return MetricTotals(float(loss), confusion)

    def reset(self) -> None:
        """Set the sum of losses and the confusion matrix to 0."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))


def class_accuracies(confusion: np.ndarray) -> list[float | None]:
    """Return the accuracy of each class, in [0, 1]; None for a class without images.

    Args:
        confusion: Confusion matrix with the true classes as rows.
    """
    class_image_counts = confusion.sum(axis=1)
    return [
        int(correct_count) / int(image_count) if image_count else None
        for correct_count, image_count in zip(confusion.diagonal(), class_image_counts, strict=True)
    ]


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Return the mean of the per-class accuracies over the classes that have images.

    Args:
        confusion: Confusion matrix of at least one image, with the true classes as rows.
    """
    accuracies = [accuracy for accuracy in class_accuracies(confusion) if accuracy is not None]
    return sum(accuracies) / len(accuracies)
