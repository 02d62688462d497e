"""Multiply-adds of Keras layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import keras

Shape = tuple[int | None, ...]


def count_multiply_adds(layer: keras.Layer) -> int | None:
    """Return the multiply-adds of one layer for one image; see `summarize_network` for the rules.

    Args:
        layer: A built layer, not a model.

    Returns:
        0 for every layer except convolutions and dense layers; None if the shape of its output, or
        of its input, is not known.
    """
    kinds = keras.layers
    if isinstance(layer, kinds.Conv2DTranspose):
        # Here each element of the kernel, (height, width, filters, channels), is used once at each
        # position of the input.
        return _count_kernel_products(
            get_shape_per_image(layer, "input"), layer.kernel.shape[-1], [layer.kernel]
        )
    if isinstance(layer, kinds.SeparableConv2D):
        kernels, channels = [layer.depthwise_kernel, layer.pointwise_kernel], layer.filters
    elif isinstance(layer, kinds.DepthwiseConv2D):
        # Of shape (height, width, channels, depth multiplier).
        kernels, channels = [layer.kernel], math.prod(layer.kernel.shape[2:])
    elif isinstance(layer, kinds.Conv2D):
        kernels, channels = [layer.kernel], layer.filters
    elif isinstance(layer, kinds.Dense):
        kernels, channels = [layer.kernel], layer.units
    else:
        return 0
    return _count_kernel_products(get_shape_per_image(layer, "output"), channels, kernels)


def has_uncounted_kernel(layer: keras.Layer) -> bool:
    """Return whether a layer multiplies with a kernel of its own and yet counts as 0."""
    return count_multiply_adds(layer) == 0 and any(
        len(weight.shape) > 1 for weight in layer.weights
    )


def get_shape_per_image(layer: keras.Layer, end: Literal["input", "output"]) -> Shape | None:
    """Return the shape of a layer's input or output for one image.

    Args:
        layer: A built layer.
        end: Which of both.

    Returns:
        The shape without the batch dimension; None if Keras does not know it, as in a model that is
        no graph of layers, or if the layer has several inputs or outputs.
    """
    try:
        return tuple(getattr(layer, end).shape[1:])
    except (AttributeError, ValueError):
        return None


def _count_kernel_products(
    shape: Shape | None, channels: int, kernels: Sequence[keras.Variable]
) -> int | None:
    """Return the number of products if each element of a kernel is used once at each position."""
    if shape is None or None in shape:
        return None
    # Dividing by the channels works for any position of the channel axis.
    positions = math.prod(side for side in shape if side is not None) // channels
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)
