"""Reference system E: the residual network, for 48x48 images and five classes."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

SMALLEST = 31
"""Below it the first convolution and four poolings, each of which halves, leave nothing."""


def build(size: int, classes: int) -> keras.Model:
    """Builds it: a convolution 7x7, two stages of three bottlenecks each, the logits.

    A stage is one projection block, which pools behind its first convolution, and two identity
    blocks. Every convolution has a bias; weights are drawn as He et al. do (2015, normal). It has
    1,174,021 parameters for 48x48 pixels and five classes, 8,576 of them not trainable.

    Args:
        size: The side of the images, in pixels; 48 in the original, 31 at least.
        classes: How many emotions there are; five in the original.

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
        maps = _bottleneck(maps, f"stage_{stage}_projection", inner, outer, projected=True)
        for number in (1, 2):
            maps = _bottleneck(maps, f"stage_{stage}_identity_{number}", inner, outer)
    maps = layers.AveragePooling2D(2, name="average_pool")(maps)
    values = layers.Flatten(name="flatten")(maps)
    logits = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(values)
    return keras.Model(pixels, logits, name="system_e")


def _bottleneck(
    maps: Tensor, name: str, inner: int, outer: int, *, projected: bool = False
) -> Tensor:
    """Convolutions 1x1, 3x3 and 1x1 beside a shortcut; a projected one halves the maps' side."""
    found = _convolution(maps, f"{name}_a", inner, 1, pooled=projected)
    found = layers.ReLU(name=f"{name}_a_relu")(found)
    found = _convolution(found, f"{name}_b", inner, 3)
    found = layers.ReLU(name=f"{name}_b_relu")(found)
    found = _convolution(found, f"{name}_c", outer, 1)
    if projected:
        maps = _convolution(maps, f"{name}_shortcut", outer, 1, pooled=True)
    total = layers.Add(name=f"{name}_sum")([found, maps])
    return layers.ReLU(name=f"{name}_relu")(total)


def _convolution(
    maps: Tensor, name: str, filters: int, kernel: int, *, pooled: bool = False
) -> Tensor:
    maps = layers.Conv2D(
        filters, kernel, padding="same", kernel_initializer="he_normal", name=name
    )(maps)
    if pooled:
        maps = layers.MaxPooling2D(2, name=f"{name}_pool")(maps)
    return layers.BatchNormalization(name=f"{name}_batch_norm")(maps)
