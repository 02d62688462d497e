"""Image files, read by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image file with 8 bits per channel; colours are in the order BGR.

    It asserts that the file is an image that OpenCV reads.

    Args:
        path: The file.
        flags: Conversion of the pixels, one of OpenCV's `cv2.IMREAD_...`.
    """
    image = cv2.imread(str(path), flags)
    assert image is not None, f"{path}: cannot be read as an image"
    return image.astype(np.uint8, casting="no", copy=False)


def encode_image(suffix: str, image: npt.NDArray[Any], *options: int) -> bytes:
    """Return an image as the content of a file."""
    return cv2.imencode(suffix, image, options)[1].tobytes()


def decode_grey(content: bytes) -> npt.NDArray[np.uint8]:
    """Return the grey values of an image file, as OpenCV converts them.

    It asserts that the content is an image that OpenCV reads.

    Args:
        content: Content of the file.
    """
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None, "the content cannot be decoded as an image"
    return image.astype(np.uint8, casting="no", copy=False)
