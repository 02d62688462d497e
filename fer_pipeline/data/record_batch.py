"""A batch of records as a source holds them, in columns: no object per record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import Outcome

EXCERPT_LENGTH = 80
"""Characters of a bad record that the quarantine keeps."""

_EXCERPT_TAIL = 20  # characters from the end of a long record

Pixels = npt.NDArray[np.uint8]


class RecordErrors:
    """The errors of n records: most have none.

    Attributes:
        outcomes: Quarantine code of each record, `Outcome.KEPT` without an error; int8 of shape
            (n,).
        details: For each record with an error, by its position: what is wrong and what was
            expected.
    """

    def __init__(self, count: int) -> None:
        """Begin without an error.

        Args:
            count: Number of records.
        """
        self.outcomes = np.full(count, Outcome.KEPT, np.int8)
        self.details: dict[int, str] = {}

    def add(self, row: int, outcome: Outcome, detail: str) -> None:
        """Set the error of one record, in place of an earlier one."""
        self.outcomes[row] = outcome
        self.details[row] = detail

    def update(self, errors: RecordErrors) -> None:
        """Take over other errors of the same records, in place of earlier ones.

        A broken line stays one: its fields are not those of the header.
        """
        for row, detail in errors.details.items():
            if self.outcomes[row] != Outcome.BROKEN_LINE:
                self.add(row, Outcome(int(errors.outcomes[row])), detail)


@dataclass(frozen=True)
class ParsedRecords:
    """Records of one file, or image files, in columns of one length n.

    Attributes:
        emotions: Text of each label; None if the source has none.
        usages: Text of each usage; None if the source has none.
        texts: The record itself, or its path; the quarantine shows an excerpt of it.
        images: Grey values, uint8 of shape (n, height, width), or one array of shape
            (height, width) for each record if the sizes differ. Those of a record with an error
            are meaningless.
        errors: Why records cannot be read.
    """

    emotions: Sequence[str | None]
    usages: Sequence[str | None]
    texts: Sequence[bytes]
    images: Pixels | Sequence[Pixels]
    errors: RecordErrors

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.texts)


def make_excerpt(text: bytes) -> str:
    """Return the beginning of a record, and its end if it is long, as printable text."""
    if len(text) > EXCERPT_LENGTH:
        text = text[: EXCERPT_LENGTH - _EXCERPT_TAIL - 5] + b" ... " + text[-_EXCERPT_TAIL:]
    return "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))
