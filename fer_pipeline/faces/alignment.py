"""Alignment of faces: rotation, size and position as in the faces of FER2013."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.faces.detection import Image, Points

REFERENCE = np.array([[0.31, 0.39], [0.69, 0.39], [0.5, 0.59], [0.5, 0.76]], np.float32)
"""Positions of the landmarks in an aligned image, as fractions of its width and height.

They are the medians in FER2013's training images, measured with the full-range sparse network, and
made symmetric; docs/faces.md has the measurement and the spread."""

_MAX_REDUCTION = 16
"""Largest factor by which a face is reduced from an image of several times the size."""


def align_face(image: Image, landmarks: Points, size: int) -> tuple[Image, float]:
    """Return a face, rotated and resized so that its landmarks lie where those of FER2013 lie.

    The landmarks cannot all lie exactly there; the sum of the squared distances is smallest
    (Umeyama 1991, without mirroring). What lies outside of the image repeats its border.

    Args:
        image: The image.
        landmarks: Landmarks of the face, in pixels of the image, float32 of shape (4, 2).
        size: Height and width to return, in pixels.

    Returns:
        Grey values, uint8 of shape (size, size), and the height and width of the part of the image
        that they show, in pixels.
    """
    matrix = _estimate_similarity(landmarks, REFERENCE)
    # A face that is larger than the result is first drawn at a multiple of its size, and its pixels
    # are then averaged; otherwise most pixels of the face would have no effect.
    side = 1 / math.hypot(*matrix[:, 0])
    factor = min(_MAX_REDUCTION, max(1, round(side / size)))
    matrix *= size * factor
    # The centre of the first pixel is at 0.5, and OpenCV has it at 0.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    shape = (size * factor, size * factor)
    aligned = cv2.warpAffine(
        image, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if aligned.ndim == 3:
        aligned = cv2.cvtColor(aligned, cv2.COLOR_RGB2GRAY)
    return cv2.resize(aligned, (size, size), interpolation=cv2.INTER_AREA), side  # type: ignore[return-value]


def _estimate_similarity(points: Points, targets: Points) -> npt.NDArray[np.float64]:
    """Return the rotation, scaling and shift that brings points closest to targets.

    Args:
        points: float32 of shape (n, 2).
        targets: float32 of shape (n, 2).

    Returns:
        Matrix of shape (2, 3), as OpenCV uses it.
    """
    # As complex numbers, a rotation with scaling is a factor, which least squares determine.
    source = points.astype(np.float64) @ np.array([1, 1j])
    target = targets.astype(np.float64) @ np.array([1, 1j])
    centered = source - source.mean()
    factor = np.vdot(centered, target - target.mean()) / max(np.vdot(centered, centered).real, 1e-9)
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
