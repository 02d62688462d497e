"""Images in memory: decoding, and bringing them to one size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# Spark runs one worker per core, so a pool of threads inside each would only compete with it.
cv2.setNumThreads(1)
# What cannot be decoded goes to the quarantine with its reason; OpenCV need not say it too.
cv2.setLogLevel(0)


def decode_gray(data: bytes) -> npt.NDArray[np.uint8] | None:
    """Decodes an image file of any format that OpenCV reads.

    Args:
        data: The file's bytes.

    Returns:
        Its grey values, uint8 of shape (height, width); None where it is no image or is cut short.
    """
    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    return image  # type: ignore[return-value]


def resize(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Brings an image to size x size pixels.

    Area interpolation where both sides shrink (each pixel is the mean of those that it covers),
    else linear; rounded once to whole numbers, at the end.

    Args:
        image: uint8 of shape (height, width).
        size: The side of the result, in pixels.

    Returns:
        uint8 of shape (size, size).
    """
    height, width = image.shape
    if (height, width) == (size, size):
        return image
    shrinks = height >= size and width >= size
    if shrinks:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
    # On whole numbers OpenCV would round the weights as well, and be off by up to a grey level.
    values = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.rint(values).astype(np.uint8)
