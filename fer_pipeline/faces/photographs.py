"""Faces in the images of files: found, aligned, and described in one row for each face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

import cv2

from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, Problem, decode_file
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.faces.alignment import align_face
from fer_pipeline.faces.detection import Faces, Image
from fer_pipeline.faces.detectors import DetectorOptions, load_detector
from fer_pipeline.faces.quality import measure_quality
from fer_pipeline.io.file_parts import FileContent

LARGEST_CROP = 128
"""Longer side in pixels up to which an image is taken for a crop in the mode `auto`."""

_FULL_FACE = 0.65
"""Height of a single face, as a fraction of the image's shorter side, from which on the image is
taken for a crop in the mode `auto`."""

_PIXELS_PER_SMALLEST_FACE = 20
"""Height of the smallest face in a reduced image, in pixels, so that a detector still finds it."""

_LARGE_REDUCTIONS = (8, 4, 2)

FaceMode = Literal["auto", "detect", "crop"]
"""What the images are: photographs (`detect`), crops of one face each (`crop`), or either."""


@dataclass(frozen=True)
class FaceOptions:
    """Options of the search for faces.

    Attributes:
        mode: What the images are.
        detector: Options of the detector.
        size: Height and width of an aligned face, in pixels.
        min_quality: Quality below which a face is refused, in [0, 1].
    """

    mode: FaceMode = "auto"
    detector: DetectorOptions = field(default_factory=DetectorOptions)
    size: int = 48
    min_quality: float = 0.0


@dataclass(frozen=True)
class FaceReader:
    """A function that reads the faces of an image file; see `find_faces_in_file`.

    Equal readers are equal, so that a process can keep what it has loaded for one.
    """

    decoding: DecodingOptions
    faces: FaceOptions

    def __call__(self, content: FileContent) -> list[DecodedFile]:
        """Return the faces of a file."""
        return find_faces_in_file(content, self.decoding, self.faces)


@dataclass(frozen=True)
class SingleFaceReader:
    """A function that reads the only face of an image file; see `find_single_face`."""

    decoding: DecodingOptions
    faces: FaceOptions

    def __call__(self, content: FileContent) -> list[DecodedFile]:
        """Return the face of a file, in a list of one element."""
        return [find_single_face(content, self.decoding, self.faces)]


def find_single_face(
    content: FileContent, decoding: DecodingOptions, options: FaceOptions
) -> DecodedFile:
    """Find the face that a labelled photograph shows.

    Args:
        content: Content of the file, or the reason why it cannot be read.
        decoding: Options of the decoding.
        options: Options of the search.

    Returns:
        The largest face; or a problem if there is none, or another one is more than half as high.
    """
    images = find_faces_in_file(content, decoding, options)
    heights = [file.face.height for file in images if file.face]
    if not heights:
        return images[0]
    largest = images[heights.index(max(heights))]
    rival_count = sum(height > max(heights) / 2 for height in heights)
    if rival_count == 1:
        return largest
    detail = f"{rival_count} of {len(heights)} faces are more than half as high as the largest"
    return DecodedFile(None, (Outcome.SEVERAL_FACES, detail))


def find_faces_in_file(
    content: FileContent, decoding: DecodingOptions, options: FaceOptions
) -> list[DecodedFile]:
    """Find the faces of an image file.

    Args:
        content: Content of the file, or the reason why it cannot be read.
        decoding: Options of the decoding.
        options: Options of the search.

    Returns:
        One element for each face. For a crop, a file without a face and a file that is no usable
        image it is a single one.

    Raises:
        MissingPackageError: The networks of the detector are not installed.
    """
    decoded = decode_file(content, decoding, partial(_choose_reduction, options=options))
    image = decoded.image
    if image is None or image.ndim == 2:
        return [decoded]
    faces = find_faces(image, options.detector, decoded.reduction)
    if options.mode == "auto" and _is_filled(image, faces):
        return [decode_file(content, decoding)]
    return _describe_faces(content, decoding, options, decoded, faces)


def find_faces_in_image(image: Image, options: FaceOptions) -> list[DecodedFile]:
    """Find the faces of an image in memory; see `find_faces_in_file`."""
    height, width = image.shape[:2]
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    crop = DecodedFile(cast(Image, grey))
    if _choose_reduction(width, height, options) is None:
        return [crop]
    faces = find_faces(image, options.detector)
    if options.mode == "auto" and _is_filled(image, faces):
        return [crop]
    if not len(faces):
        return [DecodedFile(None, (Outcome.FACE_NOT_FOUND, _describe_size(image, 1)))]
    return [
        _check_quality(row, aligned, options.min_quality, None)
        for row, aligned in describe_faces(image, faces, options.size)
    ]


def find_faces(image: Image, options: DetectorOptions, reduction: int = 1) -> Faces:
    """Return the faces of an image, each of them once, the most certain one first.

    Args:
        image: The image.
        options: Options of the detector.
        reduction: Factor by which the image is smaller than that whose smallest faces the options
            state.

    Raises:
        MissingPackageError: The networks of the detector are not installed.
    """
    height, width = (side * reduction for side in image.shape[:2])
    min_size = options.get_min_size(width, height) / reduction
    return load_detector(options).detect(image, min_size)


def _choose_reduction(width: int, height: int, options: FaceOptions) -> int | None:
    """Return by which factor to reduce an image while it is decoded; None for a crop."""
    if options.mode == "crop" or (options.mode == "auto" and max(width, height) <= LARGEST_CROP):
        return None
    smallest_face = options.detector.get_min_size(width, height)
    return _find_reduction(smallest_face, _PIXELS_PER_SMALLEST_FACE)


def _find_reduction(face: float, pixels: float) -> int:
    """Return the largest factor that leaves a face of some pixels at least so many."""
    return next((factor for factor in _LARGE_REDUCTIONS if face / factor >= pixels), 1)


def _is_filled(image: Image, faces: Faces) -> bool:
    """Return whether a single face fills an image."""
    return len(faces) == 1 and bool(faces.boxes[0, 3] >= _FULL_FACE * min(image.shape[:2]))


def _describe_faces(
    content: FileContent,
    decoding: DecodingOptions,
    options: FaceOptions,
    decoded: DecodedFile,
    faces: Faces,
) -> list[DecodedFile]:
    """Align the faces of a photograph, and measure their quality.

    Args:
        content: Content of the file.
        decoding: Options of the decoding.
        options: Options of the search.
        decoded: Image of the file, perhaps reduced.
        faces: Faces in this image.
    """
    image, reduction = cast(Image, decoded.image), decoded.reduction
    if not len(faces):
        problem = (Outcome.FACE_NOT_FOUND, _describe_size(image, reduction))
        return [DecodedFile(None, problem)]
    faces = faces.transform(reduction)
    # The faces need as many pixels as the result has.
    smaller_reduction = _find_reduction(float(faces.boxes[:, 3].min()), options.size)
    if smaller_reduction < reduction:
        enlarged = decode_file(content, decoding, lambda *_: smaller_reduction)
        if enlarged.image is not None:
            image, reduction = enlarged.image, enlarged.reduction
    return [
        _check_quality(row, aligned, options.min_quality, decoded.note)
        for row, aligned in describe_faces(image, faces, options.size, reduction)
    ]


def _describe_size(image: Image, reduction: int) -> str:
    """Return the size of an image in its file, as text."""
    height, width = (side * reduction for side in image.shape[:2])
    return f"{'about ' if reduction > 1 else ''}{width}x{height} pixels"


def describe_faces(
    image: Image, faces: Faces, size: int, reduction: int = 1
) -> Iterator[tuple[FaceRow, Image]]:
    """Align faces, and measure their quality.

    Args:
        image: The image, perhaps reduced.
        faces: Faces in the coordinates of the image before the reduction.
        size: Height and width of an aligned face, in pixels.
        reduction: Factor by which the image is reduced.

    Yields:
        Each face, and its grey values, uint8 of shape (size, size).
    """
    for number in range(len(faces)):
        landmarks = faces.landmarks[number]
        aligned, side = align_face(image, landmarks / reduction, size)
        position = [*faces.boxes[number].tolist(), *landmarks[:2].ravel().tolist()]
        quality = measure_quality(aligned, landmarks, side * reduction)
        confidence = float(faces.confidences[number])
        row = FaceRow._make([number, *position, confidence, *quality])
        yield row, aligned


def _check_quality(
    row: FaceRow, aligned: Image, min_quality: float, note: str | None
) -> DecodedFile:
    """Return an aligned face, with the problem of a face of low quality."""
    problem: Problem | None = None
    if row.quality < min_quality:
        detail = f"quality {row.quality:.2f}; inference.min_quality is {min_quality:g}"
        problem = (Outcome.LOW_QUALITY, detail)
    return DecodedFile(aligned, problem, note, face=row)
