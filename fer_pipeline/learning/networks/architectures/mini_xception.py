"""mini-Xception (Arriaga, Valdenegro-Toro and Plöger 2017, arXiv:1710.07557), for 64x64 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 5
"""Side of the smallest image, in pixels: the first two convolutions remove two each."""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: two convolutions, four residual separable modules, a mean per class.

    This is the variant that its authors trained on FER2013: 58,423 parameters for seven classes at
    any size, 1,472 of them not trainable. Only the last convolution has a bias. Their L2 penalty of
    0.01 on the kernels is part of the training, not of the network.

    Args:
        size: Side of the images, in pixels; 64 in the original, 5 at least.
        classes: Number of emotions.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    maps = pixels
    for number in (1, 2):
        maps = layers.Conv2D(8, 3, use_bias=False, name=f"convolution_{number}")(maps)
        maps = layers.BatchNormalization(name=f"batch_norm_{number}")(maps)
        maps = layers.ReLU(name=f"relu_{number}")(maps)
    for number, filters in enumerate((16, 32, 64, 128), start=1):
        maps = _apply_residual_module(maps, f"module_{number}", filters)
    maps = layers.Conv2D(classes, 3, padding="same", name="class_maps")(maps)
    logits = layers.GlobalAveragePooling2D(name="logits")(maps)
    return keras.Model(pixels, logits, name="mini_xception")


def _apply_residual_module(maps: Tensor, name: str, filters: int) -> Tensor:
    """Add two separable convolutions and a pooling to a 1x1 convolution; halve the maps' side."""
    # The original's 1x1 convolution has a stride of 2, whose gradient writes beyond its memory in
    # TensorFlow 2.21 with oneDNN. Dropping every second pixel first is the same function.
    shortcut = layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_shortcut_stride")(
        maps
    )
    shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut")(shortcut)
    shortcut = layers.BatchNormalization(name=f"{name}_shortcut_batch_norm")(shortcut)
    maps = _apply_separable_convolution(maps, f"{name}_a", filters)
    maps = layers.ReLU(name=f"{name}_a_relu")(maps)
    maps = _apply_separable_convolution(maps, f"{name}_b", filters)
    maps = layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(maps)
    return layers.Add(name=f"{name}_sum")([maps, shortcut])


def _apply_separable_convolution(maps: Tensor, name: str, filters: int) -> Tensor:
    maps = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(maps)
    return layers.BatchNormalization(name=f"{name}_batch_norm")(maps)
