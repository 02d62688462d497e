"""The package's own network, the one that comes trained: at most a million parameters."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

SMALLEST = 8
"""The side of the smallest image: each of three poolings halves it."""


def build(
    size: int,
    classes: int,
    stem: int = 32,
    stages: Sequence[int] = (64, 128, 224),
    dropout: float = 0.3,
) -> keras.Model:
    """Builds it: a convolution, three stages of two convolutions each, a global mean, the logits.

    All convolutions are plain ones, 3x3: on processors these are the cheapest for what they learn.
    The maps shrink early, before the stem's BatchNorm and ReLU, because at full size it is moving
    the maps that takes the time. The second convolution of a stage has a shortcut around it (He et
    al. 2016). With seven classes it has 991,431 parameters, 1,728 of them not trainable, whatever
    the size, and 90 million multiply-adds for 48x48 pixels.

    Args:
        size: The side of the images, in pixels; 48 in training, 8 at least.
        classes: How many emotions there are.
        stem: The filters of the first convolution.
        stages: The filters of each stage.
        dropout: The part of the means that training sets to zero before the logits, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    maps = _convolution(pixels, "stem", stem)
    maps = layers.MaxPooling2D(2, name="stem_pool")(maps)
    maps = layers.BatchNormalization(name="stem_batch_norm")(maps)
    maps = layers.ReLU(name="stem_relu")(maps)
    for number, filters in enumerate(stages, start=1):
        if number > 1:
            maps = layers.MaxPooling2D(2, name=f"stage_{number}_pool")(maps)
        maps = _stage(maps, f"stage_{number}", filters)
    # In whatever precision the maps are computed, these few numbers cost nothing in float32.
    means = layers.GlobalAveragePooling2D(name="mean", dtype="float32")(maps)
    means = layers.Dropout(dropout, name="dropout", dtype="float32")(means)
    logits = layers.Dense(classes, name="logits", dtype="float32")(means)
    return keras.Model(pixels, logits, name="compact")


def _stage(maps: Tensor, name: str, filters: int) -> Tensor:
    maps = _convolution(maps, f"{name}_a", filters)
    maps = layers.BatchNormalization(name=f"{name}_a_batch_norm")(maps)
    maps = layers.ReLU(name=f"{name}_a_relu")(maps)
    found = _convolution(maps, f"{name}_b", filters)
    found = layers.BatchNormalization(name=f"{name}_b_batch_norm")(found)
    total = layers.Add(name=f"{name}_sum")([found, maps])
    return layers.ReLU(name=f"{name}_b_relu")(total)


def _convolution(maps: Tensor, name: str, filters: int) -> Tensor:
    return layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(maps)
