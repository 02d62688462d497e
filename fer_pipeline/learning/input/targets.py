"""Training targets: distributions over the classes."""

from __future__ import annotations

import tensorflow as tf

from fer_pipeline.learning.types import Tensor


def one_hot_encode(labels: Tensor, class_count: int) -> Tensor:
    """Return labels as distributions over the classes, float32 of shape (n, class_count).

    Args:
        labels: Classes, integers of shape (n,), or distributions, which are returned unchanged.
        class_count: Number of classes.
    """
    return tf.one_hot(labels, class_count) if labels.dtype.is_integer else labels
