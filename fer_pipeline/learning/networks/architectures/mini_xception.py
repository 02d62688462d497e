"""mini-Xception (Arriaga, Valdenegro-Toro and Plöger 2017, arXiv:1710.07557), for 64x64 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 5
"""Minimum height and width of the images, in pixels.

Each of the first two convolutions removes 2 pixels.
"""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: two convolutions, four residual modules, and global average pooling.

    The residual modules consist of separable convolutions. After them, a last convolution returns
    one feature map per class; the average of each map is a logit. Only this convolution has a bias.
    This is the variant that the authors trained on FER2013: 58,423 parameters (1,472 non-trainable)
    for seven classes at any image size. The authors' L2 penalty of 0.01 on the kernels is left out.

    Args:
        size: Height and width of the images, in pixels; at least 5; the original uses 64.
        classes: Number of classes.

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    features = pixels
    for number in (1, 2):
        features = layers.Conv2D(8, 3, use_bias=False, name=f"convolution_{number}")(features)
        features = layers.BatchNormalization(name=f"batch_norm_{number}")(features)
        features = layers.ReLU(name=f"relu_{number}")(features)
    for number, filters in enumerate((16, 32, 64, 128), start=1):
        features = _apply_residual_module(features, f"module_{number}", filters)
    features = layers.Conv2D(classes, 3, padding="same", name="class_maps")(features)
    logits = layers.GlobalAveragePooling2D(name="logits")(features)
    return keras.Model(pixels, logits, name="mini_xception")


def _apply_residual_module(features: Tensor, name: str, filters: int) -> Tensor:
    """Apply a residual module of mini-Xception, which halves height and width.

    The module is the sum of two branches: two separable convolutions followed by max-pooling, and a
    1x1 convolution as shortcut.
    """
    # In the original, the 1x1 convolution has a stride of 2. In TensorFlow 2.21 with oneDNN,
    # computing the gradient of such a convolution writes outside the allocated memory. Pooling 1x1
    # with a stride of 2 before a convolution without stride computes the same function.
    shortcut = layers.MaxPooling2D(1, strides=2, padding="same", name=f"{name}_shortcut_stride")(
        features
    )
    shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut")(shortcut)
    shortcut = layers.BatchNormalization(name=f"{name}_shortcut_batch_norm")(shortcut)
    features = _apply_separable_convolution(features, f"{name}_a", filters)
    features = layers.ReLU(name=f"{name}_a_relu")(features)
    features = _apply_separable_convolution(features, f"{name}_b", filters)
    features = layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(features)
    return layers.Add(name=f"{name}_sum")([features, shortcut])


def _apply_separable_convolution(features: Tensor, name: str, filters: int) -> Tensor:
    """Apply a separable 3x3 convolution without bias, and batch normalisation."""
    features = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=name)(
        features
    )
    return layers.BatchNormalization(name=f"{name}_batch_norm")(features)
