"""What is measured while training and validating: the loss, and what was taken for what."""

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
    """What was found over a number of images.

    Attributes:
        loss_sum: The sum of their losses, in nats.
        confusion: How many of each class (row) were taken for each class (column), int64.
    """

    loss_sum: float
    confusion: np.ndarray

    @property
    def rows(self) -> int:
        """How many images there were."""
        return int(self.confusion.sum())

    @property
    def results(self) -> dict[str, float]:
        """`loss` and `accuracy`, nan without images."""
        rows, right = self.rows or math.nan, int(self.confusion.trace())
        return {"loss": self.loss_sum / rows, "accuracy": right / rows}


class RunningMetrics:
    """Running measures over a number of batches, those of all workers together.

    Attributes:
        variables: What they are made of in this process.
    """

    def __init__(self, classes: int) -> None:
        """Begins at nothing.

        Args:
            classes: How many there are.
        """
        # In float64 the sum is nearly the same whatever the order and whoever has added it.
        self._loss = keras.Variable(0.0, dtype="float64", trainable=False, name="loss")
        counts = np.zeros((classes, classes))
        self._confusion = keras.Variable(counts, dtype="int64", trainable=False, name="confusion")
        self.variables = [self._loss, self._confusion]

    def update(self, losses: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Adds a batch.

        Args:
            losses: Of each image, of shape (n,).
            labels: Classes of shape (n,), or distributions of shape (n, classes): the likeliest
                counts. What is not 0 or above is no image, and does not count.
            logits: Of shape (n, classes).
        """
        if not labels.dtype.is_integer:
            labels = tf.argmax(labels, axis=1)
        classes = self._confusion.shape[0]
        true = tf.one_hot(labels, classes, dtype=tf.int32)
        said = tf.one_hot(tf.argmax(logits, axis=1), classes, dtype=tf.int32)
        counted = tf.where(labels >= 0, tf.cast(losses, tf.float64), 0)
        self._loss.assign_add(tf.reduce_sum(counted))
        self._confusion.assign_add(tf.cast(tf.matmul(true, said, transpose_a=True), tf.int64))

    def measured(self) -> MetricTotals:
        """What was found so far. Every worker has to ask."""
        loss, confusion = distributed.all_reduce_sum([np.asarray(one) for one in self.variables])
        return MetricTotals(float(loss), confusion)

    def reset(self) -> None:
        """Begins again."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))


def class_accuracies(confusion: np.ndarray) -> list[float | None]:
    """The accuracy of each class, 0..1; None for one without images.

    Args:
        confusion: As of `Measured`.
    """
    totals = confusion.sum(axis=1)
    return [
        int(right) / int(total) if total else None
        for right, total in zip(confusion.diagonal(), totals, strict=True)
    ]


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """The mean of `class_accuracies` over the classes that have images."""
    known = [value for value in class_accuracies(confusion) if value is not None]
    return sum(known) / len(known)
