"""Reference system B: the four-block CNN of a students' e-learning project, for 48x48 images."""

from __future__ import annotations

import keras
from keras import layers

from fer_pipeline.learning.networks import four_blocks

SMALLEST = four_blocks.SMALLEST


def build(size: int, classes: int, dropout: float = 0.25) -> keras.Model:
    """Builds it: four blocks of one convolution (64, 128, 512 and 512 filters), the logits.

    It has 3,192,839 parameters for 48x48 pixels and seven classes, 2,432 of them not trainable.

    Args:
        size: The side of the images, in pixels; 48 in the original, 16 at least.
        classes: How many emotions there are.
        dropout: The part of the values that training sets to zero after each block, 0..1.

    Returns:
        A model from normalised pixels, float32 of shape (n, size, size, 1), to logits of shape
        (n, classes).
    """
    return keras.Sequential(
        [
            layers.Input((size, size, 1)),
            *four_blocks.four_blocks(dropout),
            layers.Flatten(name="flatten"),
            layers.Dense(classes, name="logits"),
        ],
        name="system_b",
    )
