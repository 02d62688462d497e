"""Network of reference system D, the stacked CNN of the Kaggle top ten, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

MIN_IMAGE_SIZE = 18
"""Side of the smallest image, in pixels: one convolution removes two, four poolings halve it."""


def build(size: int, classes: int) -> keras.Model:
    """Build the network: four blocks of two convolutions, three dense layers, the logits.

    The first convolution has no padding and no BatchNorm. The network has 5,905,863 parameters for
    48x48 pixels and seven classes, 3,712 of them not trainable.

    Args:
        size: Side of the images, in pixels; 48 in the original, 18 at least.
        classes: Number of emotions.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
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
