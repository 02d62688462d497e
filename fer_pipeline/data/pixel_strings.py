"""Parsing of FER2013 pixel strings."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import QuarantineReason

MIN_SIZE = 8
"""The smallest side of an image, in pixels, that is taken for a face."""

_SPACE, _ZERO = 32, 48
_LONE_SIGN = re.compile(rb"[+-](?![0-9])")
# Rows that are parsed in one go: their text (about 8 kB each) and its few temporaries then stay in
# the second-level cache; 12 us a row of 48x48 where np.fromstring takes 35 us.
_ROWS_AT_ONCE = 32


class PixelError(ValueError):
    """A pixel string that is none.

    Attributes:
        reason: Which kind of fault it is.
    """

    def __init__(self, reason: QuarantineReason, message: str) -> None:
        """Takes the kind of fault, and what was got and expected."""
        super().__init__(message)
        self.reason = reason


def square_side(count: int) -> int | None:
    """The side of a square image of `count` pixels, or None where there is no such image."""
    side = math.isqrt(count)
    return side if side * side == count and side >= MIN_SIZE else None


def parse_pixels(text: bytes, count: int | None = None) -> npt.NDArray[np.uint8]:
    """Parses one pixel string, strictly.

    Args:
        text: Decimal numbers with white space between them.
        count: How many there must be; None for any number.

    Returns:
        The values, uint8 of shape (count,).

    Raises:
        PixelError: The field is empty, a token is no whole number, a value lies outside 0..255, or
            the count differs.
    """
    if not text.strip():
        raise PixelError(QuarantineReason.EMPTY, "no pixels")
    # NumPy reads a lone sign as 0, or joins it to the number that follows.
    if _LONE_SIGN.search(text):
        raise PixelError(QuarantineReason.PIXEL_TOKEN, "a pixel is not a whole number")
    with warnings.catch_warnings():
        # NumPy stops at a token that it cannot read, and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise PixelError(
                QuarantineReason.PIXEL_TOKEN, "a pixel is not a whole number"
            ) from None
    if len(values) and (values.min() < 0 or values.max() > 255):
        raise PixelError(
            QuarantineReason.PIXEL_RANGE, f"values from {values.min()} to {values.max()}"
        )
    if count is not None and len(values) != count:
        raise PixelError(QuarantineReason.PIXEL_COUNT, f"{len(values)} pixels, expected {count}")
    return values.astype(np.uint8)


def parse_pixel_rows(
    texts: Sequence[bytes], count: int
) -> tuple[npt.NDArray[np.uint8], dict[int, PixelError]]:
    """Parses many pixel strings of one length, fast where they are well formed.

    Args:
        texts: Pixel strings.
        count: How many pixels each must have.

    Returns:
        The values, uint8 of shape (len(texts), count), and the fault of each row that has one, by
        its position; the values of such a row are zero.
    """
    values = np.zeros((len(texts), count), np.uint8)
    faults: dict[int, PixelError] = {}
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        chunk = texts[start : start + _ROWS_AT_ONCE]
        parsed = _parse_well_formed(chunk, count)
        if parsed is not None:
            values[start : start + len(chunk)] = parsed
            continue
        for row, text in enumerate(chunk, start):
            try:
                values[row] = parse_pixels(text, count)
            except PixelError as fault:
                faults[row] = fault
    return values, faults


def _parse_well_formed(texts: Sequence[bytes], count: int) -> npt.NDArray[np.uint8] | None:
    """Parses strings of 1 to 3 digits with single spaces between; None where one is not so."""
    # Three spaces before the first number, so that looking back three digits stays inside.
    text = np.frombuffer(b"   " + b" ".join(texts) + b" ", np.uint8)
    spaces = text == _SPACE
    digits = text - np.uint8(_ZERO)  # wraps: whatever is no digit becomes 10 or more
    ends = np.flatnonzero(spaces)[3:]
    if len(ends) != count * len(texts) or not (spaces | (digits < 10)).all():
        return None
    # Every row must end where a number ends, or a long row would lend pixels to a short one.
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if not np.array_equal(ends[count - 1 :: count], 2 + np.cumsum(lengths + 1)):
        return None
    units, tens, hundreds = digits[ends - 1], digits[ends - 2], digits[ends - 3]
    has_tens = tens < 10
    has_hundreds = has_tens & (hundreds < 10)
    if (units >= 10).any() or (has_hundreds & (text[ends - 4] != _SPACE)).any():
        return None
    # All in uint8, an eighth of the memory of the default: 99 fits, 200 fits, and what is above 255
    # comes out smaller than what was added.
    hundreds = hundreds * has_hundreds
    below = units + tens * has_tens * np.uint8(10)
    values = below + hundreds * np.uint8(100)
    if (hundreds > 2).any() or (values < below).any():
        return None
    return values.reshape(len(texts), count)
