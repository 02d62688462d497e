"""Notes on images that are used nevertheless, for the user to check."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.record_batch import Pixels

log = logging.getLogger(__name__)

_SEPARATOR = "; "


class ImageNote(StrEnum):
    """The notes."""

    FIRST_OF_SEVERAL = "first image of several in its file"
    DAMAGED = "damaged image"
    CONSTANT = "all pixels equal"


def join_notes(notes: Iterable[str]) -> str | None:
    """Return the notes on an image as one text; None if there are none."""
    return _SEPARATOR.join(notes) or None


def add_constant_notes(
    notes: Mapping[int, str], images: Pixels, has_image: npt.NDArray[np.bool_]
) -> dict[int, str]:
    """Add a note on each image whose pixels are all equal.

    Args:
        notes: Notes on records, by the position of the record.
        images: Images of the m records that have one, uint8 of shape (m, size, size).
        has_image: Whether each record has an image, bool of shape (n,).

    Returns:
        All notes, by the position of the record.
    """
    pixels = images.reshape(len(images), images.shape[1] * images.shape[2])
    is_constant = pixels.min(axis=1) == pixels.max(axis=1)
    joined = dict(notes)
    for row in np.flatnonzero(has_image)[is_constant].tolist():
        note = notes.get(row)
        joined[row] = f"{note}{_SEPARATOR}{ImageNote.CONSTANT}" if note else ImageNote.CONSTANT
    return joined


def count_notes(counts: Iterable[tuple[str | None, int]]) -> Counter[str]:
    """Count the images by note.

    Args:
        counts: Joined notes on images, see `join_notes`, and the number of these images.
    """
    totals = Counter[str]()
    for note, count in counts:
        if note:
            totals.update(dict.fromkeys(note.split(_SEPARATOR), count))
    return totals


def log_notes(totals: Mapping[str, int]) -> None:
    """Log a warning for each note, with the number of its images."""
    for note, count in totals.items():
        log.warning("note on %d images: %s", count, note)
