"""Batches of parsed records, stored as columns instead of one object per record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.outcomes import Outcome

EXCERPT_LENGTH = 80
"""Maximum number of characters of a bad record that the quarantine stores."""

_EXCERPT_TAIL = 20  # characters from the end of a long record

Pixels = npt.NDArray[np.uint8]


class RecordErrors:
    """The errors of n records.

    Attributes:
        outcomes: `Outcome` of each record, int8 of shape (n,); `Outcome.KEPT` if it has no error.
        details: Description of each error, by the position of the record.
    """

    def __init__(self, record_count: int) -> None:
        """Create the errors of records that have no errors yet.

        Args:
            record_count: Number of records.
        """
        self.outcomes = np.full(record_count, Outcome.KEPT, np.int8)
        self.details: dict[int, str] = {}

    def set_error(self, row: int, outcome: Outcome, detail: str) -> None:
        """Set the error of one record; it replaces an earlier error.

        Args:
            row: Position of the record among the n records, from 0.
            outcome: Reason to quarantine the record, such as `Outcome.BROKEN_LINE`.
            detail: Description of the error.
        """
        self.outcomes[row] = outcome
        self.details[row] = detail

    def update(self, errors: RecordErrors) -> None:
        """Add the errors in `errors`; they replace earlier errors of the same records.

        The errors of a broken line and of an unreadable file stay: the fields of such a line do not
        match the columns of the header, and such a file has none, so errors in them mean nothing.

        Args:
            errors: Further errors of the same n records.
        """
        for row, detail in errors.details.items():
            if self.outcomes[row] not in (Outcome.BROKEN_LINE, Outcome.UNREADABLE_FILE):
                self.set_error(row, Outcome(int(errors.outcomes[row])), detail)


@dataclass(frozen=True)
class ParsedRecords:
    """n records of one CSV file, or n image files, in columns.

    Attributes:
        emotions: Label text of each record; None if the source has no labels.
        usages: Usage text of each record; None if the source has no usages.
        texts: Line of each record, or path of each image file; the quarantine stores an excerpt.
        images: Grey values, uint8 of shape (n, height, width), or a sequence of n arrays of shape
            (height, width) if the sizes differ. The image of a record with an error is undefined.
        errors: Errors of the records that cannot be read.
        notes: Notes on images that are used nevertheless, by the position of the record.
        faces: Faces that were found in larger images, by the position of the record.
    """

    emotions: Sequence[str | None]
    usages: Sequence[str | None]
    texts: Sequence[bytes]
    images: Pixels | Sequence[Pixels]
    errors: RecordErrors
    notes: Mapping[int, str] = field(default_factory=dict)
    faces: Mapping[int, FaceRow] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.texts)


def make_excerpt(text: bytes) -> str:
    """Return a record as printable text of at most 80 characters (EXCERPT_LENGTH).

    A longer record is shortened in the middle. Characters that cannot be printed become `?`.
    """
    if len(text) > EXCERPT_LENGTH:
        text = text[: EXCERPT_LENGTH - _EXCERPT_TAIL - 5] + b" ... " + text[-_EXCERPT_TAIL:]
    return "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))
