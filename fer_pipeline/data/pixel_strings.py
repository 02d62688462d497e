"""Parsing of FER2013 pixel strings."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.record_batch import RecordErrors

MIN_SIZE = 8
"""The smallest side of an image, in pixels, that is accepted as a face."""

_SPACE = ord(" ")
_ZERO = ord("0")
_LONE_SIGN = re.compile(rb"[+-](?![0-9])")
# Rows that are parsed together: their text (about 8 kB each) and its few temporaries then stay in
# the second-level cache. 12 us a row of 48x48, np.fromstring takes 35 us.
_ROWS_PER_CHUNK = 32


class PixelError(ValueError):
    """An invalid pixel string.

    Attributes:
        outcome: The kind of error, a quarantine code.
    """

    def __init__(self, outcome: Outcome, message: str) -> None:
        """Create the error.

        Args:
            outcome: Kind of error.
            message: What the string holds and what was expected.
        """
        super().__init__(message)
        self.outcome = outcome


def square_image_size(count: int) -> int | None:
    """Return the side of a square image of `count` pixels, None if there is no such image."""
    side = math.isqrt(count)
    return side if side * side == count and side >= MIN_SIZE else None


def parse_pixels(text: bytes, count: int | None = None) -> npt.NDArray[np.uint8]:
    """Parse one pixel string, strictly.

    Args:
        text: Decimal numbers with white space between them.
        count: Number of pixels that is expected; None for any number.

    Returns:
        The values, uint8 of shape (count,).

    Raises:
        PixelError: The field is empty, a token is no whole number, a pixel lies outside 0..255, or
            their number differs.
    """
    if not text.strip():
        raise PixelError(Outcome.EMPTY_FIELD, "no pixels")
    # NumPy reads a lone sign as 0, or joins it to the number that follows.
    if _LONE_SIGN.search(text):
        raise PixelError(Outcome.PIXEL_TOKEN, "a pixel is not a whole number")
    with warnings.catch_warnings():
        # NumPy stops at a token that it cannot read, and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            pixels = np.fromstring(text, dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise PixelError(Outcome.PIXEL_TOKEN, "a pixel is not a whole number") from None
    if len(pixels) and (pixels.min() < 0 or pixels.max() > 255):
        raise PixelError(Outcome.PIXEL_RANGE, f"values from {pixels.min()} to {pixels.max()}")
    if count is not None and len(pixels) != count:
        raise PixelError(Outcome.PIXEL_COUNT, f"{len(pixels)} pixels, expected {count}")
    return pixels.astype(np.uint8)


def parse_pixel_rows(
    texts: Sequence[bytes], count: int
) -> tuple[npt.NDArray[np.uint8], RecordErrors]:
    """Parse pixel strings of one length, fast if they are well formed.

    Args:
        texts: Pixel strings.
        count: Number of pixels that each must have.

    Returns:
        The pixels, uint8 of shape (len(texts), count), and the errors; the pixels of a string with
        an error are zero.
    """
    pixels = np.zeros((len(texts), count), np.uint8)
    errors = RecordErrors(len(texts))
    for start in range(0, len(texts), _ROWS_PER_CHUNK):
        chunk = texts[start : start + _ROWS_PER_CHUNK]
        well_formed = _parse_well_formed(chunk, count)
        if well_formed is not None:
            pixels[start : start + len(chunk)] = well_formed
            continue
        for row, text in enumerate(chunk, start):
            try:
                pixels[row] = parse_pixels(text, count)
            except PixelError as error:
                errors.add(row, error.outcome, str(error))
    return pixels, errors


def _parse_well_formed(texts: Sequence[bytes], count: int) -> npt.NDArray[np.uint8] | None:
    """Parse numbers of 1 to 3 digits with single spaces between; None for any other string."""
    # Three spaces before the first number, so that looking back three digits stays inside.
    text = np.frombuffer(b"   " + b" ".join(texts) + b" ", np.uint8)
    spaces = text == _SPACE
    digits = text - np.uint8(_ZERO)  # wraps: any other character becomes 10 or more
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
    # All in uint8, an eighth of the memory of the default: 99 fits, 200 fits, and a sum above 255
    # wraps to less than one of its terms.
    hundreds = hundreds * has_hundreds
    below_hundred = units + tens * has_tens * np.uint8(10)
    pixels = below_hundred + hundreds * np.uint8(100)
    if (hundreds > 2).any() or (pixels < below_hundred).any():
        return None
    return pixels.reshape(len(texts), count)
