"""The detectors of faces: what they are called, and how they combine their networks."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from fer_pipeline.faces.blazeface import BlazeFace, read_network
from fer_pipeline.faces.detection import (
    MAX_OVERLAP,
    Detector,
    Faces,
    Image,
    compute_overlaps,
    make_no_faces,
    merge_faces,
)
from fer_pipeline.faces.tiles import Tile, iterate_tiles

DetectorName = Literal["auto", "full_range_sparse", "full_range", "back"]

DETECTOR_NAMES: tuple[str, ...] = get_args(DetectorName)
"""Names of the detectors."""

_MIN_SIZE = 20.0
_MIN_FRACTION = 0.02
_ACCEPTED_FRACTION = 0.6
"""Height of the smallest accepted box, as a fraction of the smallest size to find: around the same
face, the networks draw boxes of different sizes."""

_TILE_SIDE = 25
"""Side of a tile, in units of the smallest face. Such a face has 8 of the 192 pixels of the input
of the full-range network, which still proposes all 18 faces of the measurement in docs/faces.md."""

_LONG_RANGE = "full_range_sparse"
_SHORT_RANGE = "short_range"
_PROPOSED_CONFIDENCE = 0.15
_REFINED_CONFIDENCE = 0.05
_CLEAR_CONFIDENCE = 0.7
"""Confidence of the full-range network from which on a second look is not needed."""

_SHORT_RANGE_HANDICAP = 0.15
_WINDOW = 2.0
"""Side of the window of the second look, in units of the face."""

_MAX_SHIFT = 0.3
"""How far the centre of a face may move in the second look, in units of the face."""


@dataclass(frozen=True)
class DetectorOptions:
    """Options of the detection of faces.

    Attributes:
        name: Name of the detector, one of DETECTOR_NAMES.
        min_size: Height of the smallest face, in pixels. None is 2 % of the longer side of the
            image, and at least 20 pixels.
        min_confidence: Confidence below which a face is ignored; None is the detector's default.
        max_faces: Largest number of faces in an image; the most certain ones are kept.
        use_tiles: Whether to look for small faces in tiles of large images.
    """

    name: str = "auto"
    min_size: int | None = None
    min_confidence: float | None = None
    max_faces: int = 100
    use_tiles: bool = True

    def get_min_size(self, width: int, height: int) -> float:
        """Return the height of the smallest face to find in an image, in pixels.

        Args:
            width: Width of the image, in pixels.
            height: Height of the image, in pixels.
        """
        return self.min_size or max(_MIN_SIZE, _MIN_FRACTION * max(width, height))


@functools.lru_cache(maxsize=2)
def load_detector(options: DetectorOptions) -> Detector:
    """Load a detector; the last ones are cached.

    Raises:
        MissingPackageError: The package with the networks is not installed.
    """
    if options.name == "auto":
        return RefiningDetector(options)
    return SingleDetector(options)


def describe_detector(options: DetectorOptions) -> dict[str, str]:
    """Return the name of a detector, and the SHA-256 of the files of its networks.

    Raises:
        MissingPackageError: The package with the networks is not installed.
    """
    names = (_LONG_RANGE, _SHORT_RANGE) if options.name == "auto" else (options.name,)
    content = b"".join(read_network(name) for name in names)
    return {"name": options.name, "sha256": hashlib.sha256(content).hexdigest()}


class SingleDetector:
    """A detector with a single network; see `Detector`."""

    DEFAULT_CONFIDENCE = 0.5

    def __init__(self, options: DetectorOptions) -> None:
        """Load the network."""
        self._network = BlazeFace(options.name)
        self._min_confidence = options.min_confidence or self.DEFAULT_CONFIDENCE
        self._options = options

    def detect(self, image: Image, min_size: float) -> Faces:
        """Return the faces of an image, each of them once; see `Detector`."""
        tiles = _list_tiles(image, min_size, self._options)
        faces = _find_in_tiles(self._network, tiles, self._min_confidence)
        return _select(faces, min_size, self._options)


class RefiningDetector:
    """A detector that looks twice at a face of which it is not sure; see `Detector`.

    The full-range network and the short-range network propose faces in the whole image and in its
    tiles. The short-range network then looks at each proposed face at the size at which it is best,
    and at its mirror image, and its landmarks are used. The confidence is the mean of both looks.
    """

    DEFAULT_CONFIDENCE = 0.6

    def __init__(self, options: DetectorOptions) -> None:
        """Load the networks."""
        self._long_range = BlazeFace(_LONG_RANGE)
        self._short_range = BlazeFace(_SHORT_RANGE)
        self._options = options
        self._min_confidence = options.min_confidence or self.DEFAULT_CONFIDENCE

    def detect(self, image: Image, min_size: float) -> Faces:
        """Return the faces of an image, each of them once; see `Detector`."""
        tiles = _list_tiles(image, min_size, self._options)
        proposals = _find_in_tiles(self._long_range, tiles, _PROPOSED_CONFIDENCE)
        is_clear = proposals.confidences >= max(_CLEAR_CONFIDENCE, self._min_confidence)
        unclear = self._refine_all(image, proposals.select(~is_clear), 0.0)
        faces = Faces.concatenate([proposals.select(is_clear), unclear])
        # This network takes many things for faces.
        proposals = _find_in_tiles(self._short_range, tiles, _PROPOSED_CONFIDENCE)
        is_new = compute_overlaps(proposals.boxes, faces.boxes).max(axis=1, initial=0) < MAX_OVERLAP
        new = self._refine_all(image, proposals.select(is_new), _SHORT_RANGE_HANDICAP)
        return _select(merge_faces(Faces.concatenate([faces, new])), min_size, self._options)

    def _refine_all(self, image: Image, proposals: Faces, handicap: float) -> Faces:
        """Look at proposed faces again, and return the accepted ones with their new positions.

        Args:
            image: The image.
            proposals: The proposed faces.
            handicap: What is taken from their confidences.
        """
        # The second look can add at most half of 1.
        least = 2 * (self._min_confidence + handicap) - 1
        promising = proposals.select(proposals.confidences >= least)
        refined = [
            self._refine(image, promising.select(slice(row, row + 1)), handicap)
            for row in range(len(promising))
        ]
        faces = Faces.concatenate([make_no_faces(), *refined])
        return faces.select(faces.confidences >= self._min_confidence)

    def _refine(self, image: Image, face: Faces, handicap: float) -> Faces:
        """Look at a single face again, and return it with its new position and confidence."""
        size = self._short_range.input_size
        center = face.boxes[0, :2] + face.boxes[0, 2:] / 2
        side = float(face.boxes[0, 2:].max()) * _WINDOW
        window = _cut_window(image, (float(center[0]), float(center[1])), side, size)
        looks = Faces.concatenate(
            [
                self._find_in_middle(window),
                _mirror(self._find_in_middle(window[:, ::-1]), size),
            ]
        )
        confidence = (face.confidences[0] + looks.confidences.sum() / 2) / 2 - handicap
        confidences = np.array([confidence], np.float32)
        if not len(looks):
            return Faces(face.boxes, face.landmarks, confidences)
        refined = Faces(
            looks.boxes.mean(axis=0, keepdims=True),
            looks.landmarks.mean(axis=0, keepdims=True),
            confidences,
        )
        left, top = center - side / 2
        return refined.transform(side / size, left, top)

    def _find_in_middle(self, window: Image) -> Faces:
        """Return the most certain face in the middle of a window, or no face."""
        faces = merge_faces(
            self._short_range.find(np.ascontiguousarray(window), _REFINED_CONFIDENCE)
        )
        distances = np.abs(faces.boxes[:, :2] + faces.boxes[:, 2:] / 2 - window.shape[0] / 2)
        is_near = distances.max(axis=1) < _MAX_SHIFT * window.shape[0] / _WINDOW
        return faces.select(is_near).select(slice(1))


def _list_tiles(image: Image, min_size: float, options: DetectorOptions) -> list[Tile]:
    """Return the image, and the tiles that are needed to find its smallest faces."""
    side = round(_TILE_SIDE * min_size) if options.use_tiles else max(image.shape[:2])
    return list(iterate_tiles(image, side))


def _find_in_tiles(network: BlazeFace, tiles: list[Tile], min_confidence: float) -> Faces:
    """Return the faces in the tiles of an image, each of them once."""
    return merge_faces(
        Faces.concatenate(
            [
                network.find(tile.image, min_confidence).transform(1, tile.left, tile.top)
                for tile in tiles
            ]
        )
    )


def _select(faces: Faces, min_size: float, options: DetectorOptions) -> Faces:
    """Return the faces that are large enough, up to the largest number."""
    is_large = faces.boxes[:, 3] >= _ACCEPTED_FRACTION * min_size
    return faces.select(is_large).select(slice(options.max_faces))


def _cut_window(image: Image, center: tuple[float, float], side: float, size: int) -> Image:
    """Return a square part of an image, resized; what lies outside of the image is black.

    Args:
        image: The image.
        center: Centre of the part, in pixels.
        side: Its height and width, in pixels.
        size: Height and width to return, in pixels.
    """
    scale = size / side
    x, y = (size / 2 - coordinate * scale for coordinate in center)
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _mirror(faces: Faces, width: int) -> Faces:
    """Return faces of a mirrored image in the coordinates of the image."""
    boxes, landmarks = faces.boxes.copy(), faces.landmarks.copy()
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    landmarks[..., 0] = width - landmarks[..., 0]
    landmarks[:, [0, 1]] = landmarks[:, [1, 0]]
    return Faces(boxes, landmarks, faces.confidences)
