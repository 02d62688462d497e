"""`compact`, a network of this package with about a million parameters, bundled with weights."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 8
"""Minimum height and width of the images, in pixels: each of three poolings halves them."""


def build(
    size: int,
    classes: int,
    stem: int = 32,
    stages: Sequence[int] = (64, 128, 224),
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: a convolution, three stages, global average pooling and a dense layer.

    Each stage has two 3x3 convolutions and a shortcut around the second one (He et al. 2016).
    Max-pooling halves height and width before each stage.

    With seven classes the network has 991,431 parameters at any image size (1,728 non-trainable)
    and 90 million multiply-adds for 48x48 pixels.

    Args:
        size: Height and width of the images, in pixels; at least 8; the bundled model uses 48.
        classes: Number of classes.
        stem: Number of filters of the first convolution.
        stages: Number of filters of the convolutions in each stage.
        dropout: Dropout rate of the pooled features, in [0, 1].

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    # Plain 3x3 convolutions give the best accuracy for their computing time on CPUs.
    features = _apply_convolution(pixels, "stem", stem)
    # Reading and writing features at full size is slow, so pooling precedes BatchNorm and ReLU.
    features = layers.MaxPooling2D(2, name="stem_pool")(features)
    features = layers.BatchNormalization(name="stem_batch_norm")(features)
    features = layers.ReLU(name="stem_relu")(features)
    for number, filters in enumerate(stages, start=1):
        if number > 1:
            features = layers.MaxPooling2D(2, name=f"stage_{number}_pool")(features)
        features = _apply_stage(features, f"stage_{number}", filters)
    # The layers after the pooling are small: float32 costs no time, even in mixed precision.
    features = layers.GlobalAveragePooling2D(name="mean", dtype="float32")(features)
    features = layers.Dropout(dropout, name="dropout", dtype="float32")(features)
    logits = layers.Dense(classes, name="logits", dtype="float32")(features)
    return keras.Model(pixels, logits, name="compact")


def _apply_stage(features: Tensor, name: str, filters: int) -> Tensor:
    """Apply two 3x3 convolutions with BatchNorm and ReLU, and a shortcut around the second one."""
    features = _apply_convolution(features, f"{name}_a", filters)
    features = layers.BatchNormalization(name=f"{name}_a_batch_norm")(features)
    features = layers.ReLU(name=f"{name}_a_relu")(features)
    residual = _apply_convolution(features, f"{name}_b", filters)
    residual = layers.BatchNormalization(name=f"{name}_b_batch_norm")(residual)
    total = layers.Add(name=f"{name}_sum")([residual, features])
    return layers.ReLU(name=f"{name}_b_relu")(total)


def _apply_convolution(features: Tensor, name: str, filters: int) -> Tensor:
    """Apply a 3x3 convolution without bias and without activation."""
    return layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(features)
