"""A photograph of a face for tests: the astronaut of scikit-image (NASA, in the public domain)."""

from __future__ import annotations

import io
from functools import cache
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

Picture = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

FACE: Box = (172.0, 69.0, 105.0, 105.0)
"""Left, top, width and height of the astronaut's face, in pixels, as drawn by hand to 5 pixels."""

EYES = ((204.0, 103.0), (248.0, 105.0))
"""x and y of the eye on the left and of that on the right, in pixels, read off the picture."""


@cache
def load_astronaut() -> Picture:
    """Return the photograph in RGB, uint8 of shape (512, 512, 3)."""
    return cast(Picture, skimage.data.astronaut())


def resize(picture: Picture, factor: float) -> Picture:
    """Return a picture of another size."""
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=interpolation)
    return cast(Picture, resized)


def rotate(picture: Picture, degrees: float) -> Picture:
    """Return a picture that is rotated about the astronaut's face, clockwise."""
    center = FACE[0] + FACE[2] / 2, FACE[1] + FACE[3] / 2
    matrix = cv2.getRotationMatrix2D(center, -degrees, 1)
    shape = picture.shape[1::-1]
    rotated = cv2.warpAffine(picture, matrix, shape, borderMode=cv2.BORDER_REPLICATE)
    return cast(Picture, rotated)


def paste(portrait: Picture, width: int, height: int, left: int, top: int) -> Picture:
    """Return a smooth picture with a portrait in it."""
    row = np.linspace(60, 200, width)[None, :, None]
    scene = np.broadcast_to(row, (height, width, 3)).astype(np.uint8)
    scene[top : top + portrait.shape[0], left : left + portrait.shape[1]] = portrait
    return scene


def make_faceless(width: int = 400, height: int = 300) -> Picture:
    """Return a picture without a face: waves in three colours."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / 17 + phase) * np.cos(y / 23 - phase) for phase in (0, 1, 2)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encode(picture: Picture, kind: str = "PNG", **options: int) -> bytes:
    """Return a picture as the content of a file."""

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def compute_overlap(first: Box, second: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    intersection = max(width, 0) * max(height, 0)
    return intersection / (first[2] * first[3] + second[2] * second[3] - intersection)
