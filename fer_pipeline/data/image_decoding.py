"""Decoding of image files; a file that cannot be decoded becomes a record with an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.record_batch import ParsedRecords, Pixels, RecordErrors

# Spark runs one worker per core, so a pool of threads inside each would only compete with it.
cv2.setNumThreads(1)
# A file that cannot be decoded is quarantined with its reason; OpenCV need not report it too.
cv2.setLogLevel(0)

_MAX_PIXELS_AT_ONCE = 4 << 20
"""Pixels after which decoded images are handed on: photos of many megabytes are held singly."""

_NO_IMAGE = np.zeros((0, 0), np.uint8)


def decode_gray(content: bytes) -> Pixels | None:
    """Decode an image file of any format that OpenCV reads.

    Args:
        content: The file's bytes.

    Returns:
        Its grey values, uint8 of shape (height, width); None if it is no image or is cut short.
    """
    if not content:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    return image  # type: ignore[return-value]


def parse_image_files(files: Iterable[tuple[bytes, str]]) -> Iterator[ParsedRecords]:
    """Decode image files, as many at a time as fit in memory.

    The folder that holds an image names its emotion, and the folder around that one its usage.

    Args:
        files: Content and path of each file.

    Yields:
        Records in the order of the files.
    """
    images: list[Pixels | None] = []
    paths: list[str] = []
    sizes: list[int] = []
    pixel_count = 0
    for content, path in files:
        image = decode_gray(content)
        images.append(image)
        paths.append(path)
        sizes.append(len(content))
        pixel_count += 0 if image is None else image.size
        if pixel_count >= _MAX_PIXELS_AT_ONCE:
            yield _image_records(images, paths, sizes)
            images, paths, sizes, pixel_count = [], [], [], 0
    if paths:
        yield _image_records(images, paths, sizes)


def _image_records(
    images: Sequence[Pixels | None], paths: Sequence[str], sizes: Sequence[int]
) -> ParsedRecords:
    errors = RecordErrors(len(paths))
    for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
        if image is None:
            detail = f"{size} bytes that are no whole image" if size else "no bytes"
            errors.add(row, Outcome.UNDECODABLE_IMAGE, detail)
        elif min(image.shape) < MIN_SIZE:
            height, width = image.shape
            detail = f"{width}x{height} pixels, of {MIN_SIZE}x{MIN_SIZE} at least"
            errors.add(row, Outcome.IMAGE_TOO_SMALL, detail)
    folders = [path.split("/")[:-1] for path in paths]
    return ParsedRecords(
        emotions=[names[-1] if names else None for names in folders],
        usages=[names[-2] if len(names) > 1 else None for names in folders],
        texts=[path.encode("utf-8", "replace") for path in paths],
        images=[_NO_IMAGE if image is None else image for image in images],
        errors=errors,
    )
