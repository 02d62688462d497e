"""Preparation of decoded images: enhanced, then brought to one size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.data.enhancement import Enhancement, enhance

Pixels = npt.NDArray[np.uint8]


def prepare_images(
    images: Pixels | Sequence[Pixels],
    selected: npt.NDArray[np.bool_],
    size: int,
    enhancement: Enhancement,
) -> Pixels:
    """Enhance the selected images and bring them to one size.

    Args:
        images: uint8 of shape (n, height, width), or one array of shape (height, width) for each.
        selected: The images that are wanted, bool of shape (n,).
        size: Side of the prepared images, in pixels.
        enhancement: Enhancement to apply before resizing.

    Returns:
        uint8 of shape (m, size, size), one for each selected image in their order.
    """
    has_size = isinstance(images, np.ndarray) and images.shape[1:] == (size, size)
    if has_size and enhancement == Enhancement():
        # Without a copy if all are selected, as most batches are without an error.
        return images if selected.all() else images[selected]  # type: ignore[return-value, call-overload]
    rows = np.flatnonzero(selected)
    prepared = np.empty((len(rows), size, size), np.uint8)
    for target, row in zip(prepared, rows, strict=True):
        target[:] = resize(enhance(images[row], enhancement), size)
    return prepared


def resize(image: Pixels, size: int) -> Pixels:
    """Bring an image to size x size pixels.

    Area interpolation if both sides shrink (each pixel is the mean of those that it covers), else
    linear; rounded once to whole numbers, at the end.

    Args:
        image: uint8 of shape (height, width).
        size: Side of the returned image, in pixels.

    Returns:
        uint8 of shape (size, size).
    """
    height, width = image.shape
    if (height, width) == (size, size):
        return image
    if height >= size and width >= size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    # On whole numbers OpenCV would round the weights as well, and be off by up to a grey level.
    scaled = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(scaled).astype(np.uint8)
