"""Network of reference system B, a four-block CNN of a students' project, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

MIN_IMAGE_SIZE = four_blocks.MIN_IMAGE_SIZE


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Build the network: four blocks of one convolution (64, 128, 512 and 512 filters), the logits.

    With seven classes and 48x48 pixels it has 3,192,839 parameters, 2,432 of them not trainable.

    Args:
        size: Side of the images, in pixels; 48 in the original, 16 at least.
        classes: Number of emotions.
        dropout: Fraction of the values that training sets to zero after each block, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
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
