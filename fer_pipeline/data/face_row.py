"""Position and quality of a face that was found in an image; stored with its score."""

from __future__ import annotations

from typing import NamedTuple


class FaceRow(NamedTuple):
    """A face that was found in an image; the fields are columns of the scores.

    Coordinates are in pixels of the upright image; (0, 0) is its upper left corner. Left and right
    are those of the image.

    Attributes:
        face: Number of the face in its image, from 0; the most certain face is the first.
        left: Left edge of its box.
        top: Upper edge of its box.
        width: Width of its box.
        height: Height of its box.
        left_eye_x: x of the eye on the left.
        left_eye_y: y of the eye on the left.
        right_eye_x: x of the eye on the right.
        right_eye_y: y of the eye on the right.
        detector_confidence: Confidence of the detector, in [0, 1].
        quality: Quality, in [0, 1]: the smallest of what size, sharpness and pose allow.
        sharpness: Standard deviation of the Laplacian of the aligned face, relative to that of its
            grey values; 0.56 and more in 95 % of FER2013's images.
        roll: Rotation in the plane of the image, in degrees; positive is clockwise.
        turn: Position of the nose between the eyes, in units of their distance: 0 in the middle,
            0.5 at the eye on the right.
    """

    face: int
    left: float
    top: float
    width: float
    height: float
    left_eye_x: float
    left_eye_y: float
    right_eye_x: float
    right_eye_y: float
    detector_confidence: float
    quality: float
    sharpness: float
    roll: float
    turn: float
