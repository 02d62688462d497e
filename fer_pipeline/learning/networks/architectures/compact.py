"""A network of this package with at most a million parameters, bundled trained."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 8
"""Side of the smallest image, in pixels: each of three poolings halves it."""


def build(
    size: int,
    classes: int,
    stem: int = 32,
    stages: Sequence[int] = (64, 128, 224),
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network: a convolution, three stages of two convolutions, a mean, the logits.

    All convolutions are plain 3x3 ones, which on CPUs cost the least for the accuracy that they
    give. The maps shrink early, before the stem's BatchNorm and ReLU, because at full size moving
    the maps takes most of the time. The second convolution of a stage has a shortcut around it (He
    et al. 2016). With seven classes the network has 991,431 parameters at any size, 1,728 of them
    not trainable, and 90 million multiply-adds for 48x48 pixels.

    Args:
        size: Side of the images, in pixels; 48 in training, 8 at least.
        classes: Number of emotions.
        stem: Number of filters of the first convolution.
        stages: Number of filters of each stage.
        dropout: Fraction of the means that training sets to zero before the logits, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    maps = _apply_convolution(pixels, "stem", stem)
    maps = layers.MaxPooling2D(2, name="stem_pool")(maps)
    maps = layers.BatchNormalization(name="stem_batch_norm")(maps)
    maps = layers.ReLU(name="stem_relu")(maps)
    for number, filters in enumerate(stages, start=1):
        if number > 1:
            maps = layers.MaxPooling2D(2, name=f"stage_{number}_pool")(maps)
        maps = _apply_stage(maps, f"stage_{number}", filters)
    # These few numbers cost nothing in float32, whatever precision the maps have.
    means = layers.GlobalAveragePooling2D(name="mean", dtype="float32")(maps)
    means = layers.Dropout(dropout, name="dropout", dtype="float32")(means)
    logits = layers.Dense(classes, name="logits", dtype="float32")(means)
    return keras.Model(pixels, logits, name="compact")


def _apply_stage(maps: Tensor, name: str, filters: int) -> Tensor:
    maps = _apply_convolution(maps, f"{name}_a", filters)
    maps = layers.BatchNormalization(name=f"{name}_a_batch_norm")(maps)
    maps = layers.ReLU(name=f"{name}_a_relu")(maps)
    residual = _apply_convolution(maps, f"{name}_b", filters)
    residual = layers.BatchNormalization(name=f"{name}_b_batch_norm")(residual)
    total = layers.Add(name=f"{name}_sum")([residual, maps])
    return layers.ReLU(name=f"{name}_b_relu")(total)


def _apply_convolution(maps: Tensor, name: str, filters: int) -> Tensor:
    return layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(maps)
