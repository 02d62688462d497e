"""Network of reference system B, a four-block CNN of a students' project, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

MIN_IMAGE_SIZE = 16
"""Minimum height and width of the images, in pixels: each of four blocks halves them."""


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Build the network: four convolution blocks and one dense layer.

    Each block has one convolution, with 64, 128, 512 and 512 filters, and halves height and width.
    With seven classes and 48x48 pixels the network has 3,192,839 parameters (2,432 non-trainable).

    Args:
        size: Height and width of the images, in pixels; at least 16; the original uses 48.
        classes: Number of classes.
        dropout: Dropout rate after each block, in [0, 1].

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    return keras.Sequential(
        [
            layers.Input((size, size, 1)),
            *four_blocks.build_four_blocks(dropout),
            layers.Flatten(name="flatten"),
            layers.Dense(classes, name="logits"),
        ],
        name="system_b",
    )
