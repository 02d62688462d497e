"""Variants of an image that are written beside it: flipped, rotated.

Each operation is created once, by a factory, and then applies to any number of images of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Operation = Callable[[Images], Images]
"""Function from uint8 images of shape (n, size, size) to as many of the same shape."""

BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "replicate": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
}
"""Fill of the corners that a rotation leaves empty: black, the nearest pixel, a mirror image."""


@dataclass(frozen=True)
class Variant:
    """A form in which an image is written.

    Attributes:
        name: Name in the dataset: `original`, `flip`, `rotate+10`, `rotate-7.5`.
        apply: Operation on the images.
    """

    name: str
    apply: Operation


def create_variants(
    flip: bool, rotations: Sequence[float], border: str, size: int
) -> list[Variant]:
    """Return all variants of an image, the original first.

    Args:
        flip: Whether the mirror image is one of them.
        rotations: Angles in degrees, counter-clockwise positive, one variant each.
        border: Fill of the corners, a key of `BORDERS`.
        size: Side of the images, in pixels.
    """
    variants = [Variant("original", lambda images: images)]
    if flip:
        variants.append(Variant("flip", create_horizontal_flip()))
    for angle in rotations:
        variants.append(Variant(f"rotate{angle:+.12g}", create_rotation(angle, border, size)))
    return variants


def create_horizontal_flip() -> Operation:
    """Return the operation that mirrors images: left becomes right."""
    return lambda images: images[:, :, ::-1]


def create_rotation(angle: float, border: str, size: int) -> Operation:
    """Return the operation that rotates images about the centre (size - 1) / 2, bilinear.

    OpenCV rounds source coordinates to 1/32 pixel.

    Args:
        angle: Angle in degrees, counter-clockwise positive.
        border: Fill of the corners, a key of `BORDERS`.
        size: Side of the images, in pixels.
    """
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, 1.0)
    mode = BORDERS[border]

    def apply(images: Images) -> Images:
        rotated = np.empty_like(images)
        for image, target in zip(images, rotated, strict=True):
            cv2.warpAffine(
                image, matrix, (size, size), dst=target, flags=cv2.INTER_LINEAR, borderMode=mode
            )
        return rotated

    return apply
