"""Faces that a detector found in an image, and what they have in common for all detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""Image in grey, uint8 of shape (height, width), or in RGB, uint8 of shape (height, width, 3)."""

Points = npt.NDArray[np.float32]
"""Coordinates, float32."""

LANDMARKS = ("eye on the left", "eye on the right", "tip of the nose", "middle of the mouth")
"""The landmarks of a face, in the order in which they are stored. Left and right are those of the
image."""

MAX_OVERLAP = 0.3
"""Overlap (intersection over union) from which two boxes are one face, as in MediaPipe's
`NonMaxSuppressionCalculator` for BlazeFace."""


@dataclass(frozen=True)
class Faces:
    """The n faces of an image.

    All coordinates are in pixels; (0, 0) is the upper left corner of the image.

    Attributes:
        boxes: Left, top, width and height of each face, float32 of shape (n, 4).
        landmarks: x and y of the landmarks of each face (LANDMARKS), float32 of shape (n, 4, 2).
        confidences: Confidence of the detector, in [0, 1], float32 of shape (n,).
    """

    boxes: Points
    landmarks: Points
    confidences: Points

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.confidences)

    @classmethod
    def concatenate(cls, faces: list[Self]) -> Self:
        """Return the faces of several lists as one."""
        return cls(
            np.concatenate([part.boxes for part in faces]),
            np.concatenate([part.landmarks for part in faces]),
            np.concatenate([part.confidences for part in faces]),
        )

    def select(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Self:
        """Return some of the faces, in the order of `index`."""
        cls = type(self)
        return cls(self.boxes[index], self.landmarks[index], self.confidences[index])

    def transform(self, scale: float, left: float = 0, top: float = 0) -> Self:
        """Return the faces in the coordinates of an image of which this one is a resized part.

        Args:
            scale: Pixels of the other image per pixel of this one.
            left: x of the upper left corner of this image, in pixels of the other.
            top: y of that corner.
        """
        offset = np.array([left, top], np.float32)
        boxes = self.boxes * np.float32(scale)
        boxes[:, :2] += offset
        return type(self)(boxes, self.landmarks * np.float32(scale) + offset, self.confidences)


class Detector(Protocol):
    """A detector of faces."""

    def detect(self, image: Image, min_size: float) -> Faces:
        """Return the faces of an image, each of them once, the most certain one first.

        Args:
            image: The image.
            min_size: Height of the smallest face to find, in pixels of this image.
        """


def make_no_faces() -> Faces:
    """Return an empty list of faces."""
    empty = np.zeros((0, 4), np.float32)
    return Faces(empty, np.zeros((0, len(LANDMARKS), 2), np.float32), empty[:, 0])


def merge_faces(faces: Faces) -> Faces:
    """Return each face once, the most certain one first.

    Boxes that overlap are one face. Its position is their mean, weighted by the confidences
    (weighted non-maximum suppression; Bazarevsky et al. 2019, BlazeFace, section 3.3).
    """
    selected = cv2.dnn.NMSBoxes(faces.boxes.tolist(), faces.confidences.tolist(), 0.0, MAX_OVERLAP)
    best = np.asarray(selected, np.intp).ravel()
    if not len(best):
        return faces.select(best)
    overlaps = compute_overlaps(faces.boxes[best], faces.boxes)
    # Each box counts for the face with which it overlaps most.
    is_same = np.arange(len(best))[:, None] == overlaps.argmax(axis=0)
    is_same[np.arange(len(best)), best] = True
    weights = np.where(is_same & (overlaps >= MAX_OVERLAP), faces.confidences, 0)
    weights[np.arange(len(best)), best] = faces.confidences[best]
    weights /= weights.sum(axis=1, keepdims=True)
    boxes = weights @ faces.boxes
    landmarks = np.einsum("mn,nlc->mlc", weights, faces.landmarks)
    return Faces(boxes, landmarks, faces.confidences[best])


def compute_overlaps(first: Points, second: Points) -> Points:
    """Compute the intersection over union of each pair of boxes.

    Args:
        first: Boxes (left, top, width, height), float32 of shape (m, 4).
        second: Boxes, float32 of shape (n, 4).

    Returns:
        float32 of shape (m, n).
    """
    starts = np.maximum(first[:, None, :2], second[None, :, :2])
    ends = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    intersections = np.clip(ends - starts, 0, None).prod(axis=2)
    areas = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1)[None]
    return (intersections / np.maximum(areas - intersections, 1e-9)).astype(np.float32)
