"""Number of multiply-adds of Keras layers; `summarize_network` explains the counting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import keras

Shape = tuple[int | None, ...]
"""Shape of a tensor for one image, without the batch dimension; None is an unknown dimension."""


def count_multiply_adds(layer: keras.Layer) -> int | None:
    """Count the multiply-adds of one layer for one image.

    A multiply-add is one multiplication and the addition of the product to a sum. Each element of
    the kernel counts once at each position of the output, or of the input for `Conv2DTranspose`.
    Additions of biases do not count.

    Args:
        layer: A built layer, but not a model.

    Returns:
        The number of multiply-adds. It is 0 for all layers except two-dimensional convolutions and
        dense layers, and None if the input or output shape is unknown.
    """
    layers = keras.layers
    if isinstance(layer, layers.Conv2DTranspose):
        # The kernel has the shape (height, width, filters, channels). Each of its elements is used
        # once at each position of the input.
        return _count_kernel_products(
            get_shape_per_image(layer, "input"), layer.kernel.shape[-1], [layer.kernel]
        )
    if isinstance(layer, layers.SeparableConv2D):
        kernels, channels = [layer.depthwise_kernel, layer.pointwise_kernel], layer.filters
    elif isinstance(layer, layers.DepthwiseConv2D):
        # The kernel has the shape (height, width, channels, depth multiplier).
        kernels, channels = [layer.kernel], math.prod(layer.kernel.shape[2:])
    elif isinstance(layer, layers.Conv2D):
        kernels, channels = [layer.kernel], layer.filters
    elif isinstance(layer, layers.Dense):
        kernels, channels = [layer.kernel], layer.units
    else:
        return 0
    return _count_kernel_products(get_shape_per_image(layer, "output"), channels, kernels)


def has_uncounted_kernel(layer: keras.Layer) -> bool:
    """Return whether a layer has a kernel for which `count_multiply_adds` returns 0.

    Examples are `Conv1D` and `LSTM`. A kernel is a weight with at least two dimensions.
    """
    return count_multiply_adds(layer) == 0 and any(
        len(weight.shape) > 1 for weight in layer.weights
    )


def get_shape_per_image(layer: keras.Layer, tensor: Literal["input", "output"]) -> Shape | None:
    """Return the shape of a layer's input or output for one image.

    Args:
        layer: A built layer.
        tensor: Whether to return the shape of the input or of the output.

    Returns:
        The shape without the batch dimension; None if the layer has several inputs or outputs, or
        if Keras does not know the shape, as in a subclassed model.
    """
    try:
        return tuple(getattr(layer, tensor).shape[1:])
    except (AttributeError, ValueError):
        return None


def _count_kernel_products(
    shape: Shape | None, channels: int, kernels: Sequence[keras.Variable]
) -> int | None:
    """Count the multiplications of a layer for one image: positions * kernel elements.

    The layer uses each element of its kernels once at each position in height and width.

    Args:
        shape: Shape of the layer's output, or of its input for a transposed convolution, without
            the batch dimension.
        channels: Number of channels in this shape.
        kernels: Kernels of the layer.

    Returns:
        The number of multiplications; None if the shape is unknown.
    """
    if shape is None or None in shape:
        return None
    # Dividing by the channels is correct for both orders of the axes (channels first or last).
    position_count = math.prod(length for length in shape if length is not None) // channels
    return position_count * sum(math.prod(kernel.shape) for kernel in kernels)
