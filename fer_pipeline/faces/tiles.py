"""Overlapping tiles of an image, so that a detector finds faces that are small in the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fer_pipeline.faces.detection import Image

_OVERLAP = 1 / 3
"""Overlap of neighbouring tiles, as a fraction of their side. A face of up to this size is whole in
one tile; larger faces are found in the whole image."""


@dataclass(frozen=True)
class Tile:
    """A part of an image.

    Attributes:
        left: x of its upper left corner, in pixels.
        top: y of that corner.
        image: Pixels of the part.
    """

    left: int
    top: int
    image: Image


def iterate_tiles(image: Image, side: int) -> Iterator[Tile]:
    """Yield the whole image, and then tiles that cover it.

    Args:
        image: The image.
        side: Largest height and width of a tile, in pixels. An image that is no larger is yielded
            once.
    """
    yield Tile(0, 0, image)
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return
    for top in _list_starts(height, side):
        for left in _list_starts(width, side):
            yield Tile(left, top, image[top : top + side, left : left + side])


def _list_starts(length: int, side: int) -> list[int]:
    """Return where the tiles along one axis start, in pixels."""
    if length <= side:
        return [0]
    count = math.ceil((length - _OVERLAP * side) / ((1 - _OVERLAP) * side))
    starts: list[int] = np.linspace(0, length - side, count).round().astype(int).tolist()
    return starts
