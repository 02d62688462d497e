"""What a network's answer costs: its multiply-adds, and the images that it does in a second."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

Shape = tuple[int | None, ...]

# A turn of fewer seconds would be luck more than speed.
_TURNS, _SECONDS = 5, 0.5


def multiply_adds(layer: keras.Layer) -> int | None:
    """The multiply-adds of one layer for one image; see `summary.describe` for what counts.

    Args:
        layer: A built layer, which is no model.

    Returns:
        0 for every layer but a convolution or a dense layer; None where the shape that it gives, or
        takes, is not known.
    """
    known = keras.layers
    if isinstance(layer, known.Conv2DTranspose):
        # Here every element of the kernel, (height, width, filters, channels), is used once at
        # each position of the input.
        return _products(shape_of(layer, "input"), layer.kernel.shape[-1], [layer.kernel])
    if isinstance(layer, known.SeparableConv2D):
        kernels, channels = [layer.depthwise_kernel, layer.pointwise_kernel], layer.filters
    elif isinstance(layer, known.DepthwiseConv2D):
        # Of shape (height, width, channels, depth multiplier).
        kernels, channels = [layer.kernel], math.prod(layer.kernel.shape[2:])
    elif isinstance(layer, known.Conv2D):
        kernels, channels = [layer.kernel], layer.filters
    elif isinstance(layer, known.Dense):
        kernels, channels = [layer.kernel], layer.units
    else:
        return 0
    return _products(shape_of(layer, "output"), channels, kernels)


def is_left_out(layer: keras.Layer) -> bool:
    """Whether a layer multiplies with a kernel of its own, and yet counts as 0."""
    return multiply_adds(layer) == 0 and any(len(weight.shape) > 1 for weight in layer.weights)


def shape_of(layer: keras.Layer, end: str) -> Shape | None:
    """What a layer gives for one image, or takes.

    Args:
        layer: The layer.
        end: `output` or `input`.

    Returns:
        The shape without the batch; None where Keras does not know it, in a model that is no graph
        of layers, and of a layer with several inputs or outputs.
    """
    try:
        return tuple(getattr(layer, end).shape[1:])
    except (AttributeError, ValueError):
        return None


def _products(shape: Shape | None, channels: int, kernels: Sequence[keras.Variable]) -> int | None:
    """Every element of a kernel is used once at each position."""
    if shape is None or None in shape:
        return None
    # Wherever the channels stand among the axes.
    positions = math.prod(side for side in shape if side is not None) // channels
    return positions * sum(math.prod(kernel.shape) for kernel in kernels)


def images_per_second(
    models: Sequence[keras.Model], pixels: Sequence[npt.NDArray[np.uint8]], batch_size: int
) -> list[float]:
    """How many images each of several models does in a second, on this machine as it is now.

    Only forward passes are timed, on pixels in memory and after one that warms up. The models take
    turns, so that what else the machine does slows them all, and the best of five turns counts, of
    half a second or a batch each.

    Args:
        models: From raw pixels to probabilities, as `bundle.load` gives them.
        pixels: What each of them takes: uint8 of shape (n, size, size), n at least 1.
        batch_size: Images that go through at once, or all where there are fewer. The rest of a
            division by it is left out.

    Returns:
        Images per second of each model.
    """
    batches = [_batches(images, batch_size) for images in pixels]
    for model, parts in zip(models, batches, strict=True):
        model.predict_on_batch(parts[0])
    turns = [
        [_speed(model, parts) for model, parts in zip(models, batches, strict=True)]
        for _ in range(_TURNS)
    ]
    return [max(found) for found in zip(*turns, strict=True)]


def _batches(pixels: npt.NDArray[np.uint8], batch_size: int) -> list[npt.NDArray[np.uint8]]:
    # A last batch of another size would make TensorFlow trace the model again.
    size = min(batch_size, len(pixels))
    starts = range(0, len(pixels) - size + 1, size)
    return [pixels[start : start + size, :, :, None] for start in starts]


def _speed(model: keras.Model, batches: Sequence[npt.NDArray[np.uint8]]) -> float:
    done, begun = 0, time.perf_counter()
    for batch in itertools.cycle(batches):
        model.predict_on_batch(batch)
        done += len(batch)
        passed = time.perf_counter() - begun
        if passed >= _SECONDS:
            break
    return done / passed


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
