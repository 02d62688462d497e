"""Network of reference system E, a residual network for 48x48 images and five classes."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 31
"""Side of the smallest image, in pixels: a convolution and four poolings halve it each."""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: a convolution 7x7, two stages of three bottlenecks each, the logits.

    A stage is one projection block, which pools after its first convolution, and two identity
    blocks. Every convolution has a bias; the initial weights follow He et al. (2015, normal). The
    network has 1,174,021 parameters for 48x48 pixels and five classes, 8,576 of them not trainable.

    Args:
        size: Side of the images, in pixels; 48 in the original, 31 at least.
        classes: Number of emotions; five in the original.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    maps = layers.ZeroPadding2D(3, name="padding")(pixels)
    maps = layers.Conv2D(64, 7, strides=2, kernel_initializer="he_normal", name="convolution")(maps)
    maps = layers.BatchNormalization(name="batch_norm")(maps)
    maps = layers.ReLU(name="relu")(maps)
    maps = layers.MaxPooling2D(2, name="pool")(maps)
    for stage, (inner, outer) in enumerate(((64, 256), (128, 512)), start=1):
        maps = _apply_bottleneck(
            maps, f"stage_{stage}_projection", inner, outer, is_projection=True
        )
        for number in (1, 2):
            maps = _apply_bottleneck(maps, f"stage_{stage}_identity_{number}", inner, outer)
    maps = layers.AveragePooling2D(2, name="average_pool")(maps)
    features = layers.Flatten(name="flatten")(maps)
    logits = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(features)
    return keras.Model(pixels, logits, name="system_e")


def _apply_bottleneck(
    maps: Tensor, name: str, inner: int, outer: int, *, is_projection: bool = False
) -> Tensor:
    """Add convolutions 1x1, 3x3 and 1x1 to a shortcut; a projection halves the maps' side."""
    residual = _apply_convolution(maps, f"{name}_a", inner, 1, is_pooled=is_projection)
    residual = layers.ReLU(name=f"{name}_a_relu")(residual)
    residual = _apply_convolution(residual, f"{name}_b", inner, 3)
    residual = layers.ReLU(name=f"{name}_b_relu")(residual)
    residual = _apply_convolution(residual, f"{name}_c", outer, 1)
    if is_projection:
        maps = _apply_convolution(maps, f"{name}_shortcut", outer, 1, is_pooled=True)
    total = layers.Add(name=f"{name}_sum")([residual, maps])
    return layers.ReLU(name=f"{name}_relu")(total)


def _apply_convolution(
    maps: Tensor, name: str, filters: int, kernel: int, *, is_pooled: bool = False
) -> Tensor:
    maps = layers.Conv2D(
        filters, kernel, padding="same", kernel_initializer="he_normal", name=name
    )(maps)
    if is_pooled:
        maps = layers.MaxPooling2D(2, name=f"{name}_pool")(maps)
    return layers.BatchNormalization(name=f"{name}_batch_norm")(maps)
