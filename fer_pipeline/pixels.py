"""Pixels as text, and pixels as numbers that a network sees."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.accounting import Reason

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

    def __init__(self, reason: Reason, message: str) -> None:
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
        raise PixelError(Reason.EMPTY, "no pixels")
    # NumPy reads a lone sign as 0, or joins it to the number that follows.
    if _LONE_SIGN.search(text):
        raise PixelError(Reason.PIXEL_TOKEN, "a pixel is not a whole number")
    with warnings.catch_warnings():
        # NumPy stops at a token that it cannot read, and only warns.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(text, dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise PixelError(Reason.PIXEL_TOKEN, "a pixel is not a whole number") from None
    if len(values) and (values.min() < 0 or values.max() > 255):
        raise PixelError(Reason.PIXEL_RANGE, f"values from {values.min()} to {values.max()}")
    if count is not None and len(values) != count:
        raise PixelError(Reason.PIXEL_COUNT, f"{len(values)} pixels, expected {count}")
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


@dataclass(frozen=True)
class Normalization:
    """What a network sees of a pixel: value * scale + offset, in float32.

    Both numbers are float32 values, so that a manifest's decimals bring back the same bits.
    """

    kind: str
    scale: float
    offset: float

    @classmethod
    def centered(cls) -> Normalization:
        """(x - 128) / 128, the normalisation of reference system A; exact in float32."""
        return cls("centered", 1 / 128, -1.0)

    @classmethod
    def unit(cls) -> Normalization:
        """The usual x / 255, to within one unit in the last place."""
        return cls("unit", float(np.float32(1 / 255)), 0.0)

    @classmethod
    def standard(cls, count: int, total: int, squares: int) -> Normalization:
        """(x - mean) / std over all pixels of a set, from whole-number sums, so it is exact.

        Args:
            count: How many pixels there are.
            total: The sum of their values.
            squares: The sum of the squares of their values.
        """
        mean = total / count
        # Whole numbers up to the last division: no cancellation, and no order of summation.
        variance = (count * squares - total * total) / (count * count)
        scale = 1 / math.sqrt(variance) if variance > 0 else 1.0
        return cls("standard", float(np.float32(scale)), float(np.float32(-mean * scale)))

    def table(self) -> npt.NDArray[np.float32]:
        """The value of each of the 256 pixels: float32 of shape (256,), strictly increasing."""
        return np.arange(256, dtype=np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """The pixels behind normalised values, exactly.

        Raises:
            ValueError: A value is not one of the table's.
        """
        table = self.table()
        guess = np.rint((values - np.float32(self.offset)) / np.float32(self.scale))
        pixels = np.nan_to_num(guess).clip(0, 255).astype(np.uint8)
        if not np.array_equal(table[pixels], values):
            raise ValueError("values that this normalisation cannot have produced")
        return pixels
