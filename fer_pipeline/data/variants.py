"""Variants of training images: mirrored and rotated images that are written in addition.

Each operation is created once and can then be applied to any number of images of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Operation = Callable[[Images], Images]
"""A function that maps images, uint8 of shape (n, size, size), to images of the same shape."""

BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "replicate": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
}
"""OpenCV's constants for filling the empty corners of a rotated image, by the name of the method:
black, the nearest pixel, or a mirror image."""


@dataclass(frozen=True)
class Variant:
    """A form in which training images are written: the original, mirrored, or rotated by an angle.

    Attributes:
        name: Name of the variant in the dataset, such as `original`, `flip`, `rotate+10` or
            `rotate-7.5`.
        apply: Operation that creates the variant from the original images.
    """

    name: str
    apply: Operation


def create_variants(
    flip: bool, rotations: Sequence[float], border: str, size: int
) -> list[Variant]:
    """Create the variants in which training images are written: original, mirrored, rotated.

    The first is always the original. The rotated variants are not mirrored.

    Args:
        flip: Whether to include the mirror image.
        rotations: Angles of the rotated variants in degrees, counter-clockwise positive.
        border: Filling of the empty corners: "constant" (black), "replicate" (nearest pixel) or
            "reflect" (mirror image).
        size: Height and width of the images, in pixels.
    """
    variants = [Variant("original", lambda images: images)]
    if flip:
        variants.append(Variant("flip", create_horizontal_flip()))
    for angle in rotations:
        variants.append(Variant(f"rotate{angle:+.12g}", create_rotation(angle, border, size)))
    return variants


def create_horizontal_flip() -> Operation:
    """Create a function that swaps left and right of images, uint8 of shape (n, size, size)."""
    return lambda images: images[:, :, ::-1]


def create_rotation(angle: float, border: str, size: int) -> Operation:
    """Create a function that rotates images about their centre, the point (size - 1) / 2.

    Pixels are interpolated bilinearly; OpenCV rounds source coordinates to 1/32 pixel.

    Args:
        angle: Angle in degrees, counter-clockwise positive.
        border: Filling of the empty corners: "constant" (black), "replicate" (nearest pixel) or
            "reflect" (mirror image).
        size: Height and width of the images, in pixels.
    """
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, 1.0)
    mode = BORDERS[border]

    def apply_rotation(images: Images) -> Images:
        """Rotate images, uint8 of shape (n, size, size), and return them as a new array."""
        rotated = np.empty_like(images)
        for image, target in zip(images, rotated, strict=True):
            cv2.warpAffine(
                image, matrix, (size, size), dst=target, flags=cv2.INTER_LINEAR, borderMode=mode
            )
        return rotated

    return apply_rotation
