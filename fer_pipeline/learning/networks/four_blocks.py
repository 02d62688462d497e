"""What reference systems B and C share: four blocks of one convolution each."""

from __future__ import annotations

from keras import layers

_CONVOLUTIONS = ((64, 3), (128, 5), (512, 3), (512, 3))  # filters, side of the kernel

SMALLEST = 2 ** len(_CONVOLUTIONS)
"""The side of the smallest image: each block's pooling halves it."""


def four_blocks(dropout: float) -> list[layers.Layer]:
    """Convolution, BatchNorm, ReLU, max-pooling 2x2 and dropout, four times over.

    Args:
        dropout: The part of the values that training sets to zero after each block, 0..1.

    Returns:
        The layers, from images of shape (n, size, size, 1) to maps of shape
        (n, size // 16, size // 16, 512).
    """
    made: list[layers.Layer] = []
    for number, (filters, kernel) in enumerate(_CONVOLUTIONS, start=1):
        made += [
            layers.Conv2D(filters, kernel, padding="same", name=f"convolution_{number}"),
            layers.BatchNormalization(name=f"batch_norm_{number}"),
            layers.ReLU(name=f"relu_{number}"),
            layers.MaxPooling2D(2, name=f"pool_{number}"),
            layers.Dropout(dropout, name=f"dropout_{number}"),
        ]
    return made
