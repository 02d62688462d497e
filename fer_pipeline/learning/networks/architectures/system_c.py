"""Reference system C: the four-block CNN with a dense head, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

SMALLEST = four_blocks.SMALLEST


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Builds it: system B's four blocks, dense layers of 256 and 512, the logits.

    It has 4,478,727 parameters for 48x48 pixels and seven classes, 3,968 of them not trainable.

    Args:
        size: The side of the images, in pixels; 48 in the original, 16 at least.
        classes: How many emotions there are.
        dropout: The part of the values that training sets to zero after each block and each dense
            layer, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
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
            *four_blocks.four_blocks(dropout),
            layers.Flatten(name="flatten"),
            *head,
            layers.Dense(classes, name="logits"),
        ],
        name="system_c",
    )
