"""Network of reference system C, a four-block CNN with a dense head, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

MIN_IMAGE_SIZE = 16
"""Minimum height and width of the images, in pixels: each of four blocks halves them."""


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Build the network: the four convolution blocks of system B and three dense layers.

    Each block has one convolution, with 64, 128, 512 and 512 filters, and halves height and width.
    The hidden dense layers have 256 and 512 units. With seven classes and 48x48 pixels the network
    has 4,478,727 parameters (3,968 non-trainable).

    Args:
        size: Height and width of the images, in pixels; at least 16; the original uses 48.
        classes: Number of classes.
        dropout: Dropout rate after each block and each hidden dense layer, in [0, 1].

    Returns:
        A model that maps normalised pixels, float32 of shape (n, size, size, 1), to logits of
        shape (n, classes).
    """
    head = []
    for number, units in enumerate((256, 512), start=1):
        head += [
            layers.Dense(units, name=f"hidden_{number}"),
            layers.BatchNormalization(name=f"hidden_batch_norm_{number}"),
            layers.ReLU(name=f"hidden_relu_{number}"),
            layers.Dropout(dropout, name=f"hidden_dropout_{number}"),
        ]
    return keras.Sequential(
        [
            layers.Input((size, size, 1)),
            *four_blocks.build_four_blocks(dropout),
            layers.Flatten(name="flatten"),
            *head,
            layers.Dense(classes, name="logits"),
        ],
        name="system_c",
    )
