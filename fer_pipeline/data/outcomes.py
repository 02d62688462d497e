"""The possible outcomes of a record: kept in a split, dropped, or quarantined, with the reason.

Each record has exactly one outcome: records read = kept + dropped + quarantined.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Self

NO_SPLIT = -1
"""The split code of a record that belongs to no split."""


class Split(StrEnum):
    """The parts of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    @property
    def code(self) -> int:
        """Number of the split, from 0, in columns that store splits as numbers."""
        return list(Split).index(self)


class QuarantineReason(StrEnum):
    """Reasons to quarantine a record: it cannot be read as a labelled image."""

    PIXEL_COUNT = "wrong number of pixels"
    PIXEL_RANGE = "value outside 0..255"
    PIXEL_TOKEN = "not a number"
    EMOTION = "unknown emotion"
    USAGE = "unknown usage"
    EMPTY = "empty field"
    BROKEN = "broken line"
    IMAGE = "undecodable image"
    DAMAGED = "damaged image"
    SMALL = "image too small"
    LARGE = "image too large"
    UNREADABLE = "unreadable file"
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    LOW_QUALITY = "low quality"


class DropReason(StrEnum):
    """Reasons to leave out a readable record, in the order in which they are checked."""

    CLASS = "class not selected"
    USAGE = "usage not selected"
    VOTED_NO_FACE = "voted as no face"
    NO_VOTES = "no votes for any class"
    TIE = "votes tied between other classes"
    COPY_OF_EVALUATION = "copy of a test or validation image"
    CONFLICT = "copies with different labels"
    COPY = "further copy with the same label"


class Outcome(IntEnum):
    """The outcomes of a record, with the numbers that represent them in int8 columns.

    Attributes:
        reason: Reason to drop or quarantine the record; None for KEPT.
    """

    reason: QuarantineReason | DropReason | None

    def __new__(cls, code: int, reason: QuarantineReason | DropReason | None = None) -> Self:
        """Create an enum member from a code and a reason; the member's value is the code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.reason = reason
        return member

    KEPT = (0, None)

    PIXEL_COUNT = (1, QuarantineReason.PIXEL_COUNT)
    PIXEL_RANGE = (2, QuarantineReason.PIXEL_RANGE)
    PIXEL_TOKEN = (3, QuarantineReason.PIXEL_TOKEN)
    UNKNOWN_EMOTION = (4, QuarantineReason.EMOTION)
    UNKNOWN_USAGE = (5, QuarantineReason.USAGE)
    EMPTY_FIELD = (6, QuarantineReason.EMPTY)
    BROKEN_LINE = (7, QuarantineReason.BROKEN)
    UNDECODABLE_IMAGE = (8, QuarantineReason.IMAGE)
    DAMAGED_IMAGE = (9, QuarantineReason.DAMAGED)
    IMAGE_TOO_SMALL = (10, QuarantineReason.SMALL)
    IMAGE_TOO_LARGE = (11, QuarantineReason.LARGE)
    UNREADABLE_FILE = (12, QuarantineReason.UNREADABLE)
    FACE_NOT_FOUND = (13, QuarantineReason.NO_FACE)
    SEVERAL_FACES = (14, QuarantineReason.SEVERAL_FACES)
    LOW_QUALITY = (15, QuarantineReason.LOW_QUALITY)

    CLASS_NOT_SELECTED = (16, DropReason.CLASS)
    USAGE_NOT_SELECTED = (17, DropReason.USAGE)
    VOTED_NO_FACE = (18, DropReason.VOTED_NO_FACE)
    NO_VOTES = (19, DropReason.NO_VOTES)
    TIED_VOTES = (20, DropReason.TIE)
    COPY_OF_EVALUATION = (21, DropReason.COPY_OF_EVALUATION)
    CONFLICTING_COPIES = (22, DropReason.CONFLICT)
    FURTHER_COPY = (23, DropReason.COPY)

    @property
    def is_quarantined(self) -> bool:
        """Return whether the record cannot be read; it is then written to the quarantine."""
        return isinstance(self.reason, QuarantineReason)

    @property
    def is_dropped(self) -> bool:
        """Return whether the record is readable but left out of the dataset."""
        return isinstance(self.reason, DropReason)
