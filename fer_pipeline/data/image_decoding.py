"""Decoding of image files; a file that cannot be decoded becomes a record with an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.record_batch import ParsedRecords, Pixels, RecordErrors

# Spark runs one worker per core, so a thread pool in each worker would only compete for the cores.
cv2.setNumThreads(1)
# A file that cannot be decoded is quarantined with the reason, so OpenCV need not log it as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PIXELS_PER_BATCH = 4 << 20
"""Number of decoded pixels after which a batch is yielded; large photos are yielded one by one."""

_NO_IMAGE = np.zeros((0, 0), np.uint8)


def decode_gray(content: bytes) -> Pixels | None:
    """Decode an image file to grey values; any format that OpenCV reads is accepted.

    Args:
        content: Content of the file.

    Returns:
        The grey values, uint8 of shape (height, width); None if the content is not a complete image
        in a format that OpenCV reads.
    """
    if not content:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        return None
    return image  # type: ignore[return-value]


def parse_image_files(files: Iterable[tuple[bytes, str]]) -> Iterator[ParsedRecords]:
    """Decode image files into records, one for each file, and yield them in batches.

    A batch ends when it contains about four million pixels, so that it fits in memory. A file that
    cannot be decoded, or whose image is too small, becomes a record with an error.

    The label and the split of an image come from the names of its folders: for `train/happy/1.png`
    the emotion is `happy` and the usage, which determines the split, is `train`. They are None if
    the path has no such folder.

    Args:
        files: Content and path of each file.

    Yields:
        Batches of records in the order of the files.
    """
    images: list[Pixels | None] = []
    paths: list[str] = []
    byte_counts: list[int] = []
    pixel_count = 0
    for content, path in files:
        image = decode_gray(content)
        images.append(image)
        paths.append(path)
        byte_counts.append(len(content))
        pixel_count += 0 if image is None else image.size
        if pixel_count >= _PIXELS_PER_BATCH:
            yield _build_image_records(images, paths, byte_counts)
            images, paths, byte_counts, pixel_count = [], [], [], 0
    if paths:
        yield _build_image_records(images, paths, byte_counts)


def _build_image_records(
    images: Sequence[Pixels | None], paths: Sequence[str], byte_counts: Sequence[int]
) -> ParsedRecords:
    """Build one record for each image file, with an error if the image is None or too small.

    Args:
        images: Decoded images; None for a file that could not be decoded.
        paths: Path of each file; its folders give the emotion and the split.
        byte_counts: Size of each file, for the error messages.
    """
    errors = RecordErrors(len(paths))
    for row, (image, byte_count) in enumerate(zip(images, byte_counts, strict=True)):
        if image is None:
            detail = f"{byte_count} bytes, not a complete image" if byte_count else "no bytes"
            errors.set_error(row, Outcome.UNDECODABLE_IMAGE, detail)
        elif min(image.shape) < MIN_SIZE:
            height, width = image.shape
            detail = f"{width}x{height} pixels; the minimum is {MIN_SIZE}x{MIN_SIZE}"
            errors.set_error(row, Outcome.IMAGE_TOO_SMALL, detail)
    parent_names = [path.split("/")[:-1] for path in paths]
    return ParsedRecords(
        emotions=[names[-1] if names else None for names in parent_names],
        usages=[names[-2] if len(names) > 1 else None for names in parent_names],
        # The quarantine stores an excerpt of each text; the text of an image file is its path.
        texts=[path.encode("utf-8", "replace") for path in paths],
        images=[_NO_IMAGE if image is None else image for image in images],
        errors=errors,
    )
