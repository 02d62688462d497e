"""Network of reference system C, a four-block CNN with a dense head, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

MIN_IMAGE_SIZE = four_blocks.MIN_IMAGE_SIZE


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Build the network: system B's four blocks, dense layers of 256 and 512, the logits.

    With seven classes and 48x48 pixels it has 4,478,727 parameters, 3,968 of them not trainable.

    Args:
        size: Side of the images, in pixels; 48 in the original, 16 at least.
        classes: Number of emotions.
        dropout: Fraction of the values that training sets to zero after each block and each dense
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
            *four_blocks.build_four_blocks(dropout),
            layers.Flatten(name="flatten"),
            *head,
            layers.Dense(classes, name="logits"),
        ],
        name="system_c",
    )
