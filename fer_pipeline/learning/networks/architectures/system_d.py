"""Network of reference system D, a CNN from the top ten of the Kaggle contest, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

MIN_IMAGE_SIZE = 18
"""Minimum height and width of the images, in pixels.

The first convolution removes 2 pixels, and each of four poolings halves the rest.
"""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: four blocks of two convolutions, and four dense layers.

    The blocks have 64, 128, 256 and 512 filters per convolution. Each block ends with max-pooling
    2x2 and dropout. The first convolution has no padding and no BatchNorm. The network has
    5,905,863 parameters (3,712 non-trainable) for 48x48 pixels and seven classes.

    Args:
        size: Height and width of the images, in pixels; at least 18; the original uses 48.
        classes: Number of classes.

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    blocks: list[layers.Layer] = []
    for number, filters in enumerate((64, 128, 256, 512), start=1):
        blocks += _build_block(number, filters)
    head: list[layers.Layer] = []
    for number, (units, dropout) in enumerate(((512, 0.4), (256, 0.4), (128, 0.5)), start=1):
        head += [
            layers.Dense(units, activation="relu", name=f"hidden_{number}"),
            layers.Dropout(dropout, name=f"hidden_dropout_{number}"),
        ]
    return keras.Sequential(
        [
            layers.Input((size, size, 1)),
            *blocks,
            layers.Flatten(name="flatten"),
            *head,
            layers.Dense(classes, name="logits"),
        ],
        name="system_d",
    )


def _build_block(number: int, filters: int) -> list[layers.Layer]:
    """Build a block: two convolutions with ReLU and BatchNorm, max-pooling 2x2, and dropout.

    The first convolution of block 1 has no padding and no BatchNorm.

    Args:
        number: Number of the block, from 1, for the names of its layers.
        filters: Number of filters of each convolution.

    Returns:
        The layers of the block, in order.
    """
    block: list[layers.Layer] = []
    for letter in "ab":
        is_first = (number, letter) == (1, "a")
        block.append(
            layers.Conv2D(
                filters,
                3,
                padding="valid" if is_first else "same",
                activation="relu",
                name=f"convolution_{number}{letter}",
            )
        )
        if not is_first:
            block.append(layers.BatchNormalization(name=f"batch_norm_{number}{letter}"))
    return [
        *block,
        layers.MaxPooling2D(2, name=f"pool_{number}"),
        layers.Dropout(0.5, name=f"dropout_{number}"),
    ]
