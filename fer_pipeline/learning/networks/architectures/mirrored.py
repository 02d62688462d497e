"""A network of this package that gives a face and its mirror image the same logits."""

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
"""Side of the smallest image, in pixels: each of three poolings halves it."""


def build(
    size: int,
    classes: int,
    stem: int = 32,
    stages: Sequence[int] = (48, 96, 192),
    shortcuts: int = 2,
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: a convolution, three stages of three convolutions, a mean, the logits.

    It is `compact` with the layers of `mirrored_layers`, deeper and with half of the parameters for
    the same multiply-adds. All convolutions of a stage but the first have a shortcut around them.

    A face and its mirror image get the same logits, up to rounding, at every size that the three
    poolings halve evenly, and nearly so at others: mirroring the images of a training set would add
    nothing to it. With seven classes the network has 548,951 parameters at any size, 1,040 of them
    not trainable, and 92 million multiply-adds for 48x48 pixels.

    Args:
        size: Side of the images, in pixels; 48 in training, 8 at least.
        classes: Number of emotions.
        stem: Number of filters of the first convolution, an even number.
        stages: Number of filters of each stage, even numbers.
        shortcuts: Number of convolutions of a stage that have a shortcut around them.
        dropout: Fraction of the means that training sets to zero before the logits, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    maps = MirroredConv2D(stem, lifting=True, name="stem")(pixels)
    maps = layers.MaxPooling2D(2, name="stem_pool")(maps)
    maps = MirroredBatchNormalization(name="stem_batch_norm")(maps)
    maps = layers.ReLU(name="stem_relu")(maps)
    for number, filters in enumerate(stages, start=1):
        if number > 1:
            maps = layers.MaxPooling2D(2, name=f"stage_{number}_pool")(maps)
        maps = _apply_stage(maps, f"stage_{number}", filters, shortcuts)
    # These few numbers cost nothing in float32, whatever precision the maps have.
    means = layers.GlobalAveragePooling2D(name="mean", dtype="float32")(maps)
    # Mirroring an image swaps the two halves of the means, which leaves their mean unchanged.
    halves = layers.Reshape((2, -1), name="halves", dtype="float32")(means)
    means = layers.GlobalAveragePooling1D(name="mean_of_halves", dtype="float32")(halves)
    means = layers.Dropout(dropout, name="dropout", dtype="float32")(means)
    logits = layers.Dense(classes, name="logits", dtype="float32")(means)
    return keras.Model(pixels, logits, name="mirrored")


def _apply_stage(maps: Tensor, name: str, filters: int, shortcuts: int) -> Tensor:
    maps = _apply_convolution(maps, f"{name}_a", filters)
    maps = layers.ReLU(name=f"{name}_a_relu")(maps)
    for number in range(1, shortcuts + 1):
        residual = _apply_convolution(maps, f"{name}_b{number}", filters)
        total = layers.Add(name=f"{name}_b{number}_sum")([residual, maps])
        maps = layers.ReLU(name=f"{name}_b{number}_relu")(total)
    return maps


def _apply_convolution(maps: Tensor, name: str, filters: int) -> Tensor:
    maps = MirroredConv2D(filters, name=name)(maps)
    return MirroredBatchNormalization(name=f"{name}_batch_norm")(maps)
