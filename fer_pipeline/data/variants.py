"""The variants of an image that are written beside it: flipped, rotated.

Each operation is made once, by a factory, and then turns any number of images of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Operation = Callable[[Images], Images]
"""From uint8 images of shape (n, size, size) to as many of the same shape."""

BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "replicate": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
}
"""What stands where a rotation has nothing: black, the nearest pixel, or a mirror image."""


@dataclass(frozen=True)
class Variant:
    """One way in which an image is written.

    Attributes:
        name: As it stands in the dataset: `original`, `flip`, `rotate+10`, `rotate-7.5`.
        apply: The operation.
    """

    name: str
    apply: Operation


def create_variants(
    flip: bool, rotations: Sequence[float], border: str, size: int
) -> list[Variant]:
    """All variants of an image, the original first.

    Args:
        flip: Whether the mirror image is one.
        rotations: Angles in degrees, counter-clockwise positive, one variant each.
        border: A key of `BORDERS`.
        size: The side of the images, in pixels.
    """
    found = [Variant("original", lambda images: images)]
    if flip:
        found.append(Variant("flip", flip_horizontally()))
    found += [Variant(f"rotate{angle:+.12g}", rotate(angle, border, size)) for angle in rotations]
    return found


def flip_horizontally() -> Operation:
    """Left becomes right."""
    return lambda images: images[:, :, ::-1]


def rotate(angle: float, border: str, size: int) -> Operation:
    """Rotates about the centre (size - 1) / 2, scale 1, bilinear.

    OpenCV rounds source coordinates to 1/32 pixel.

    Args:
        angle: In degrees, counter-clockwise positive.
        border: A key of `BORDERS`.
        size: The side of the images, in pixels.
    """
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, 1.0)
    mode = BORDERS[border]

    def apply(images: Images) -> Images:
        turned = np.empty_like(images)
        for image, into in zip(images, turned, strict=True):
            cv2.warpAffine(
                image, matrix, (size, size), dst=into, flags=cv2.INTER_LINEAR, borderMode=mode
            )
        return turned

    return apply
