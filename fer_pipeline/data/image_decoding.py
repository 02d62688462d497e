"""Decoding of image files; a file that cannot be decoded becomes a record with an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.record_batch import ParsedRecords, Pixels, RecordErrors
from fer_pipeline.io.file_parts import FileContent, Unreadable

# Spark runs one worker per core, so a thread pool in each worker would only compete for the cores.
cv2.setNumThreads(1)
# A file that cannot be decoded is quarantined with the reason, so OpenCV need not log it as well.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PIXELS_PER_BATCH = 4 << 20
"""Number of decoded pixels after which a batch is yielded; large photos are yielded one by one."""

Problem = tuple[Outcome, str]
"""Why a file is no usable image: the outcome of its record, and a description."""

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


class DecodedFile(NamedTuple):
    """The image of a file, or the reason why it has none.

    Attributes:
        image: Grey values, uint8 of shape (height, width); None if there is a problem.
        problem: The problem; None if the file is a usable image.
    """

    image: Pixels | None
    problem: Problem | None = None


def decode_file(content: FileContent) -> DecodedFile:
    """Decode an image file.

    Args:
        content: Content of the file, or the reason why it cannot be read.
    """
    if isinstance(content, Unreadable):
        return DecodedFile(None, (Outcome.UNREADABLE_FILE, content.reason))
    image = decode_gray(content)
    if image is None:
        detail = f"{len(content)} bytes, not a complete image" if content else "no bytes"
        return DecodedFile(None, (Outcome.UNDECODABLE_IMAGE, detail))
    if min(image.shape) < MIN_SIZE:
        height, width = image.shape
        detail = f"{width}x{height} pixels; the minimum is {MIN_SIZE}x{MIN_SIZE}"
        return DecodedFile(None, (Outcome.IMAGE_TOO_SMALL, detail))
    return DecodedFile(image)


def collect_records(files: Iterable[tuple[DecodedFile, str]]) -> Iterator[ParsedRecords]:
    """Convert decoded image files to records, one for each file, and yield them in batches.

    A batch ends when it contains about four million pixels, so that it fits in memory. A file with
    a problem becomes a record with an error.

    The label and the split of an image come from the names of its folders: for `train/happy/1.png`
    the emotion is `happy` and the usage, which determines the split, is `train`. They are None if
    the path has no such folder.

    Args:
        files: Each decoded file, and its path.

    Yields:
        Batches of records in the order of the files.
    """
    batch: list[tuple[DecodedFile, str]] = []
    pixel_count = 0
    for file, path in files:
        batch.append((file, path))
        pixel_count += 0 if file.image is None else file.image.size
        if pixel_count >= _PIXELS_PER_BATCH:
            yield _build_image_records(batch)
            batch, pixel_count = [], 0
    if batch:
        yield _build_image_records(batch)


def _build_image_records(files: Sequence[tuple[DecodedFile, str]]) -> ParsedRecords:
    """Build one record for each decoded image file, with its path."""
    errors = RecordErrors(len(files))
    for row, (file, _) in enumerate(files):
        if file.problem is not None:
            errors.set_error(row, *file.problem)
    paths = [path for _, path in files]
    parent_names = [path.split("/")[:-1] for path in paths]
    return ParsedRecords(
        emotions=[names[-1] if names else None for names in parent_names],
        usages=[names[-2] if len(names) > 1 else None for names in parent_names],
        # The quarantine stores an excerpt of each text; the text of an image file is its path.
        texts=[path.encode("utf-8", "replace") for path in paths],
        images=[_NO_IMAGE if file.image is None else file.image for file, _ in files],
        errors=errors,
    )
