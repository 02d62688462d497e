"""The four convolution blocks that reference systems B and C share."""

from __future__ import annotations

from keras import layers

_CONVOLUTIONS = (  # number of filters; height and width of the kernel, in pixels
    (64, 3),
    (128, 5),
    (512, 3),
    (512, 3),
)


def build_four_blocks(dropout: float) -> list[layers.Layer]:
    """Build four blocks of convolution, BatchNorm, ReLU, max-pooling 2x2 and dropout.

    The convolutions have 64, 128, 512 and 512 filters; the kernel of the second one is 5x5, the
    other kernels are 3x3.

    Args:
        dropout: Dropout rate after each block, in [0, 1].

    Returns:
        The layers, in order. Together they map images of shape (n, size, size, 1) to features of
        shape (n, size // 16, size // 16, 512).
    """
    blocks: list[layers.Layer] = []
    for number, (filters, kernel_size) in enumerate(_CONVOLUTIONS, start=1):
        blocks += [
            layers.Conv2D(filters, kernel_size, padding="same", name=f"convolution_{number}"),
            layers.BatchNormalization(name=f"batch_norm_{number}"),
            layers.ReLU(name=f"relu_{number}"),
            layers.MaxPooling2D(2, name=f"pool_{number}"),
            layers.Dropout(dropout, name=f"dropout_{number}"),
        ]
    return blocks
