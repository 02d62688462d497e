"""Where a row can go: into a split, dropped for a cause, or quarantined for a reason.

The books always balance: rows read = rows kept + rows dropped + rows quarantined.
"""

from enum import StrEnum


class Split(StrEnum):
    """The parts of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class QuarantineReason(StrEnum):
    """Why a row is quarantined: it cannot be read as a labelled image."""

    PIXEL_COUNT = "wrong number of pixels"
    PIXEL_RANGE = "value outside 0..255"
    PIXEL_TOKEN = "not a number"
    EMOTION = "unknown emotion"
    USAGE = "unknown usage"
    EMPTY = "empty field"
    BROKEN = "broken line"
    IMAGE = "undecodable image"
    SMALL = "image too small"


class DropReason(StrEnum):
    """Why a sound row is left out of the dataset, in the order in which the causes are tried."""

    CLASS = "class not selected"
    USAGE = "usage not selected"
    NO_FACE = "voted as no face"
    NO_VOTES = "no votes for any class"
    TIE = "votes tied between other classes"
    COPY_OF_EVALUATION = "copy of a test or validation image"
    CONFLICT = "copies with different labels"
    COPY = "further copy with the same label"
