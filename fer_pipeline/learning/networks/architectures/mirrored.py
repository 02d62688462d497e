"""`mirrored`, a network that returns the same logits for a face and its mirror image."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from fer_pipeline.learning.networks.mirrored_layers import (
    MirroredBatchNormalization,
    MirroredConv2D,
)
from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 8
"""Minimum height and width of the images, in pixels: each of three poolings halves them."""


def build(
    size: int,
    classes: int,
    stem: int = 32,
    stages: Sequence[int] = (48, 96, 192),
    shortcuts: int = 2,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: a convolution, stages of convolutions, global pooling and a dense layer.

    The network is like the network `compact` of this package, but it is deeper, and half of the
    filters of each convolution are mirror images of the other half (`mirrored_layers`). It has
    about half as many parameters as `compact` and about as many multiply-adds.

    A face and its mirror image get the same logits, up to rounding, if `size` is a multiple of
    2 ** len(stages): by default, of 8. Mirroring the training images is then of no use. At
    other sizes the logits are only nearly the same, because max-pooling drops the last column of a
    feature map of odd width.

    With seven classes the network has 548,951 parameters at any image size (1,040 non-trainable)
    and 92 million multiply-adds for 48x48 pixels.

    Args:
        size: Height and width of the images, in pixels; at least 8; the bundled model uses 48.
        classes: Number of classes.
        stem: Number of filters of the first convolution, an even number.
        stages: Number of filters of each convolution, by stage; even numbers.
        shortcuts: Number of convolutions with a shortcut in each stage. They follow a convolution
            without a shortcut.
        dropout: Dropout rate of the pooled features, in [0, 1].

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    features = MirroredConv2D(stem, lifting=True, name="stem")(pixels)
    features = layers.MaxPooling2D(2, name="stem_pool")(features)
    features = MirroredBatchNormalization(name="stem_batch_norm")(features)
    features = layers.ReLU(name="stem_relu")(features)
    for number, filters in enumerate(stages, start=1):
        if number > 1:
            features = layers.MaxPooling2D(2, name=f"stage_{number}_pool")(features)
        features = _apply_stage(features, f"stage_{number}", filters, shortcuts)
    # The layers after the pooling are small: float32 costs no time, even in mixed precision.
    features = layers.GlobalAveragePooling2D(name="mean", dtype="float32")(features)
    # Mirroring an image swaps the two halves of the pooled features; the mean of the two halves
    # stays the same.
    halves = layers.Reshape((2, -1), name="halves", dtype="float32")(features)
    features = layers.GlobalAveragePooling1D(name="mean_of_halves", dtype="float32")(halves)
    features = layers.Dropout(dropout, name="dropout", dtype="float32")(features)
    logits = layers.Dense(classes, name="logits", dtype="float32")(features)
    return keras.Model(pixels, logits, name="mirrored")


def _apply_stage(features: Tensor, name: str, filters: int, shortcuts: int) -> Tensor:
    """Apply a mirrored convolution, then `shortcuts` more, each with a shortcut around it.

    Each convolution has 3x3 filters, half of them mirror images of the other half. It is followed
    by batch normalisation, by the addition of its shortcut, if there is one, and by ReLU.
    """
    features = _apply_convolution(features, f"{name}_a", filters)
    features = layers.ReLU(name=f"{name}_a_relu")(features)
    for number in range(1, shortcuts + 1):
        residual = _apply_convolution(features, f"{name}_b{number}", filters)
        total = layers.Add(name=f"{name}_b{number}_sum")([residual, features])
        features = layers.ReLU(name=f"{name}_b{number}_relu")(total)
    return features


def _apply_convolution(features: Tensor, name: str, filters: int) -> Tensor:
    """Apply a mirrored 3x3 convolution and batch normalisation, without activation.

    Half of the filters are mirror images of the other half, and both halves share the statistics
    and weights of the batch normalisation.
    """
    features = MirroredConv2D(filters, name=name)(features)
    return MirroredBatchNormalization(name=f"{name}_batch_norm")(features)
