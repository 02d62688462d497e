"""Preparation of decoded images: enhancement, then resizing to a common size."""

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
    """Enhance the selected images and resize them to a common size.

    Args:
        images: uint8 of shape (n, height, width), or a sequence of n arrays of shape
            (height, width) if the sizes differ.
        selected: Whether each image is selected, bool of shape (n,).
        size: Height and width of the prepared images, in pixels.
        enhancement: Operations, such as histogram equalisation, to apply before resizing.

    Returns:
        The m selected images in their original order, uint8 of shape (m, size, size).
    """
    has_size = isinstance(images, np.ndarray) and images.shape[1:] == (size, size)
    if has_size and enhancement == Enhancement():
        # Most batches have no errors. If all images are selected, they are returned without a copy.
        return images if selected.all() else images[selected]  # type: ignore[return-value, call-overload]
    rows = np.flatnonzero(selected).tolist()
    prepared = np.empty((len(rows), size, size), np.uint8)
    for target, row in zip(prepared, rows, strict=True):
        target[:] = resize(enhance(images[row], enhancement), size)
    return prepared


def resize(image: Pixels, size: int) -> Pixels:
    """Resize an image to size x size pixels.

    If neither height nor width grows, area interpolation is used: each new pixel is the mean of the
    pixels that it covers. Otherwise linear interpolation is used, in float32 with a single
    rounding at the end.

    Args:
        image: uint8 of shape (height, width).
        size: Height and width of the returned image, in pixels.

    Returns:
        The resized image, uint8 of shape (size, size); `image` itself if it already has this size.
    """
    height, width = image.shape
    if (height, width) == (size, size):
        return image
    if height >= size and width >= size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    # For uint8 images OpenCV also rounds the weights, which causes errors of up to one grey level.
    scaled = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(scaled).astype(np.uint8)
