"""Training targets as probability distributions over the classes."""

from __future__ import annotations

import tensorflow as tf

from fer_pipeline.learning.types import Tensor


def one_hot_encode(labels: Tensor, class_count: int) -> Tensor:
    """Return labels as one-hot vectors, float32 of shape (n, class_count).

    Labels that are already distributions over the classes are returned unchanged.

    Args:
        labels: Class indices, integers of shape (n,), or distributions, float32 of shape
            (n, class_count).
        class_count: Number of classes.
    """
    return tf.one_hot(labels, class_count) if labels.dtype.is_integer else labels
