"""Records of decoded image files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fer_pipeline.data.image_decoding import DecodedFile
from fer_pipeline.data.record_batch import ParsedRecords, RecordErrors

_PIXELS_PER_BATCH = 4 << 20
"""Number of decoded pixels after which a batch is yielded; large photos are yielded one by one."""

_NO_IMAGE = np.zeros((0, 0), np.uint8)


def collect_records(files: Iterable[tuple[DecodedFile, str]]) -> Iterator[ParsedRecords]:
    """Convert decoded images to records, one for each image, and yield them in batches.

    A batch ends when it contains about four million pixels, so that it fits in memory. A file with
    a problem becomes a record with an error.

    The label and the split of an image come from the names of its folders: for `train/happy/1.png`
    the emotion is `happy` and the usage, which determines the split, is `train`. They are None if
    the path has no such folder.

    Args:
        files: Each decoded file, or face of a file, and the path of the file.

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
        notes={row: file.note for row, (file, _) in enumerate(files) if file.note},
        faces={row: file.face for row, (file, _) in enumerate(files) if file.face},
    )
