"""Network of reference system E, a residual network for 48x48 images and five classes."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.types import Tensor

MIN_IMAGE_SIZE = 31
"""Minimum height and width of the images, in pixels: the network halves them five times."""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: a 7x7 convolution, two stages of bottleneck blocks, and a dense layer.

    The 7x7 convolution has a stride of 2, and max-pooling 2x2 follows it. A stage consists of three
    bottleneck blocks, of which the first halves height and width. Average pooling 2x2 follows the
    stages. All convolutions have a bias. The initial weights come from the normal distribution of
    He et al. (2015). The network has 1,174,021 parameters (8,576 non-trainable) for 48x48 pixels
    and five classes.

    Args:
        size: Height and width of the images, in pixels; at least 31; the original uses 48.
        classes: Number of classes; the original has five.

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    pixels = layers.Input((size, size, 1), name="pixels")
    features = layers.ZeroPadding2D(3, name="padding")(pixels)
    features = layers.Conv2D(64, 7, strides=2, kernel_initializer="he_normal", name="convolution")(
        features
    )
    features = layers.BatchNormalization(name="batch_norm")(features)
    features = layers.ReLU(name="relu")(features)
    features = layers.MaxPooling2D(2, name="pool")(features)
    for stage, filters in enumerate(((64, 256), (128, 512)), start=1):
        features = _apply_bottleneck(
            features, f"stage_{stage}_projection", *filters, downsample=True
        )
        for number in (1, 2):
            features = _apply_bottleneck(features, f"stage_{stage}_identity_{number}", *filters)
    features = layers.AveragePooling2D(2, name="average_pool")(features)
    features = layers.Flatten(name="flatten")(features)
    logits = layers.Dense(classes, kernel_initializer="he_normal", name="logits")(features)
    return keras.Model(pixels, logits, name="system_e")


def _apply_bottleneck(
    features: Tensor,
    name: str,
    bottleneck_filters: int,
    output_filters: int,
    *,
    downsample: bool = False,
) -> Tensor:
    """Apply a ResNet bottleneck block: 1x1, 3x3 and 1x1 convolutions plus a shortcut.

    Args:
        features: Input of the block.
        name: Prefix of the names of the layers.
        bottleneck_filters: Number of filters of the first two convolutions.
        output_filters: Number of filters of the last convolution, and channels of the shortcut.
        downsample: Whether the block halves height and width by max-pooling. If so, its shortcut is
            a 1x1 convolution with max-pooling, otherwise the input itself.
    """
    residual = _apply_convolution(
        features, f"{name}_a", bottleneck_filters, kernel_size=1, downsample=downsample
    )
    residual = layers.ReLU(name=f"{name}_a_relu")(residual)
    residual = _apply_convolution(residual, f"{name}_b", bottleneck_filters, kernel_size=3)
    residual = layers.ReLU(name=f"{name}_b_relu")(residual)
    residual = _apply_convolution(residual, f"{name}_c", output_filters, kernel_size=1)
    shortcut = features
    if downsample:
        shortcut = _apply_convolution(
            features, f"{name}_shortcut", output_filters, kernel_size=1, downsample=True
        )
    total = layers.Add(name=f"{name}_sum")([residual, shortcut])
    return layers.ReLU(name=f"{name}_relu")(total)


def _apply_convolution(
    features: Tensor, name: str, filters: int, *, kernel_size: int, downsample: bool = False
) -> Tensor:
    """Apply a convolution, max-pooling 2x2 if `downsample` is set, and batch normalisation.

    The kernel of the convolution is `kernel_size` x `kernel_size`. There is no activation.
    """
    features = layers.Conv2D(
        filters, kernel_size, padding="same", kernel_initializer="he_normal", name=name
    )(features)
    if downsample:
        features = layers.MaxPooling2D(2, name=f"{name}_pool")(features)
    return layers.BatchNormalization(name=f"{name}_batch_norm")(features)
