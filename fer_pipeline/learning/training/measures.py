"""What is measured while training and validating: the loss, and what was taken for what."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

Tensor = Any


class _Confusion(keras.metrics.Metric):
    """How many images of each class were taken for each class."""

    def __init__(self, classes: int) -> None:
        super().__init__(name="confusion", dtype="float32")
        self.counts = self.add_variable((classes, classes), "zeros", dtype="int64")

    def update_state(self, labels: Tensor, guesses: Tensor) -> None:
        true = tf.one_hot(labels, self.counts.shape[0], dtype=tf.int32)
        said = tf.one_hot(guesses, self.counts.shape[0], dtype=tf.int32)
        self.counts.assign_add(tf.cast(tf.matmul(true, said, transpose_a=True), tf.int64))

    def result(self) -> Tensor:
        return self.counts.value


class Measures:
    """Running measures over a number of batches.

    Attributes:
        variables: What they are made of, for a checkpoint.
    """

    def __init__(self, classes: int) -> None:
        """Begins at nothing.

        Args:
            classes: How many there are.
        """
        self._loss = keras.metrics.Mean(name="loss")
        self._confusion = _Confusion(classes)

    @property
    def variables(self) -> list[keras.Variable]:
        """What they are made of, for a checkpoint."""
        return [*self._loss.variables, *self._confusion.variables]

    def update(self, losses: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Adds a batch.

        Args:
            losses: Of each image, of shape (n,).
            labels: Classes of shape (n,), or distributions of shape (n, classes): the likeliest
                counts.
            logits: Of shape (n, classes).
        """
        if not labels.dtype.is_integer:
            labels = tf.argmax(labels, axis=1)
        self._loss.update_state(losses)
        self._confusion.update_state(labels, tf.argmax(logits, axis=1))

    def results(self) -> dict[str, float]:
        """`loss` and `accuracy` so far, nan before the first batch."""
        counts = self.confusion()
        right, all_of_them = int(counts.trace()), int(counts.sum())
        return {
            "loss": float(self._loss.result()) if all_of_them else np.nan,
            "accuracy": right / all_of_them if all_of_them else np.nan,
        }

    def confusion(self) -> np.ndarray:
        """How many of each class (row) were taken for each class (column), int64."""
        return np.asarray(self._confusion.result())

    def reset(self) -> None:
        """Begins again."""
        self._loss.reset_state()
        self._confusion.reset_state()


def class_accuracies(confusion: np.ndarray) -> list[float | None]:
    """The accuracy of each class, 0..1; None for one without images.

    Args:
        confusion: As `Measures.confusion`.
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
