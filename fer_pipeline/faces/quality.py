"""Quality of a found face: size, sharpness and pose."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from fer_pipeline.faces.detection import Image, Points

_FULL_SIZE = 48.0
"""Pixels per side of a face from which on its size costs no quality: as many as FER2013 has.

When PublicTest's images are reduced to 32, 24, 20 and 16 pixels, `mirrored` is right on 0.97, 0.89,
0.75 and 0.65 times as many (`python -m benchmarks.face_accuracy`)."""

_FULL_SHARPNESS = 0.4
"""Sharpness from which on it costs no quality. Images blurred with sigma 0.7 have it in the median;
`mirrored` is right on 0.99 times as many of them, and on 0.93 times with sigma 1 (0.25)."""

_FULL_TURN = 0.5
"""Turn at which the quality is 0: the nose is in front of an eye."""


class Quality(NamedTuple):
    """Quality of a face; `data.face_row.FaceRow` describes the fields."""

    quality: float
    sharpness: float
    roll: float
    turn: float


def measure_quality(aligned: Image, landmarks: Points, side: float) -> Quality:
    """Measure the quality of a face.

    Args:
        aligned: Grey values of the aligned face, uint8 of shape (size, size).
        landmarks: Landmarks of the face in the image, float32 of shape (4, 2).
        side: Height and width of the aligned part of the image, in pixels.
    """
    values = aligned.astype(np.float32)
    # A constant image has neither edges nor contrast.
    sharpness = float(np.std(cv2.Laplacian(values, cv2.CV_32F)) / max(float(values.std()), 1.0))
    left, right, nose, _ = landmarks.astype(np.float64)
    between_eyes = right - left
    squared_distance = max(float(between_eyes @ between_eyes), 1e-9)
    turn = float((nose - (left + right) / 2) @ between_eyes / squared_distance)
    roll = float(np.degrees(np.arctan2(between_eyes[1], between_eyes[0])))
    quality = min(side / _FULL_SIZE, sharpness / _FULL_SHARPNESS, 1 - abs(turn) / _FULL_TURN, 1.0)
    return Quality(max(quality, 0.0), sharpness, roll, turn)
