"""Parsing of FER2013's pixel strings: the grey values of an image as decimal numbers."""

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
"""Minimum height and width of an image, in pixels."""

_SPACE = ord(" ")
_ZERO = ord("0")
_LONE_SIGN = re.compile(rb"[+-](?![0-9])")
# Number of rows that are parsed together: the texts (about 8 kB each) and the temporary arrays fit
# in the second-level cache. A row of 48x48 pixels takes 12 us; np.fromstring takes 35 us.
_ROWS_PER_CHUNK = 32


class PixelError(ValueError):
    """An invalid pixel string.

    Attributes:
        outcome: Kind of error, such as `Outcome.PIXEL_RANGE`.
    """

    def __init__(self, outcome: Outcome, message: str) -> None:
        """Create the error.

        Args:
            outcome: Kind of error, such as `Outcome.PIXEL_RANGE`.
            message: Description of the string's content and of the expected content.
        """
        super().__init__(message)
        self.outcome = outcome


def square_image_size(pixel_count: int) -> int | None:
    """Return the height and width of a square image with the given number of pixels.

    Args:
        pixel_count: Number of pixels.

    Returns:
        The height and width; None if the number is not a square, or the image would be smaller than
        8x8 pixels (MIN_SIZE).
    """
    size = math.isqrt(pixel_count)
    return size if size * size == pixel_count and size >= MIN_SIZE else None


def parse_pixels(text: bytes, pixel_count: int | None = None) -> npt.NDArray[np.uint8]:
    """Parse one pixel string, the grey values of an image as decimal numbers.

    Args:
        text: Decimal numbers, separated by white space.
        pixel_count: Expected number of pixels; None accepts any number.

    Returns:
        The pixels, uint8 of shape (n,) for a string of n numbers.

    Raises:
        PixelError: The text is empty, a token is not a whole number, a pixel is outside [0, 255],
            or the number of pixels differs from the expected number.
    """
    if not text.strip():
        raise PixelError(Outcome.EMPTY_FIELD, "no pixels")
    # NumPy reads a sign without a digit as 0, or joins it to the next number.
    if _LONE_SIGN.search(text):
        raise PixelError(Outcome.PIXEL_TOKEN, "a pixel is not a whole number")
    with warnings.catch_warnings():
        # NumPy stops at a token that it cannot read, and only issues a warning.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            pixels = np.fromstring(text, dtype=np.int64, sep=" ")
        except (DeprecationWarning, ValueError):
            raise PixelError(Outcome.PIXEL_TOKEN, "a pixel is not a whole number") from None
    if len(pixels) and (pixels.min() < 0 or pixels.max() > 255):
        raise PixelError(Outcome.PIXEL_RANGE, f"values from {pixels.min()} to {pixels.max()}")
    if pixel_count is not None and len(pixels) != pixel_count:
        raise PixelError(Outcome.PIXEL_COUNT, f"{len(pixels)} pixels, expected {pixel_count}")
    return pixels.astype(np.uint8)


def parse_pixel_rows(
    texts: Sequence[bytes], pixel_count: int
) -> tuple[npt.NDArray[np.uint8], RecordErrors]:
    """Parse pixel strings (grey values as decimal numbers), all with the same number of pixels.

    Strings in the usual form (numbers of 1 to 3 digits, separated by single spaces) are parsed
    together, which is about three times as fast as one by one.

    Args:
        texts: Pixel strings.
        pixel_count: Number of pixels that each string must have.

    Returns:
        pixels: uint8 of shape (len(texts), pixel_count); 0 for a string with an error.
        errors: Errors of the invalid strings.
    """
    pixels = np.zeros((len(texts), pixel_count), np.uint8)
    errors = RecordErrors(len(texts))
    for start in range(0, len(texts), _ROWS_PER_CHUNK):
        chunk = texts[start : start + _ROWS_PER_CHUNK]
        chunk_pixels = _try_parse_fast(chunk, pixel_count)
        if chunk_pixels is not None:
            pixels[start : start + len(chunk)] = chunk_pixels
            continue
        for row, text in enumerate(chunk, start):
            try:
                pixels[row] = parse_pixels(text, pixel_count)
            except PixelError as error:
                errors.set_error(row, error.outcome, str(error))
    return pixels, errors


def _try_parse_fast(texts: Sequence[bytes], pixel_count: int) -> npt.NDArray[np.uint8] | None:
    """Parse pixel strings all at once if they have the usual form, otherwise return None.

    The usual form is `pixel_count` numbers of 1 to 3 digits, separated by single spaces.

    Returns:
        The pixels, uint8 of shape (len(texts), pixel_count); None if any string is invalid or does
        not have the usual form.
    """
    # The three leading spaces keep the indices of the digits before the first number in the array.
    text = np.frombuffer(b"   " + b" ".join(texts) + b" ", np.uint8)
    spaces = text == _SPACE
    digits = text - np.uint8(_ZERO)  # wraps around: any other character becomes 10 or more
    ends = np.flatnonzero(spaces)[3:]
    if len(ends) != pixel_count * len(texts) or not (spaces | (digits < 10)).all():
        return None
    # Every row must have exactly `pixel_count` numbers. Otherwise surplus pixels of a long row
    # would be assigned to a short row.
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    if not np.array_equal(ends[pixel_count - 1 :: pixel_count], 2 + np.cumsum(lengths + 1)):
        return None
    units, tens, hundreds = digits[ends - 1], digits[ends - 2], digits[ends - 3]
    has_tens = tens < 10
    has_hundreds = has_tens & (hundreds < 10)
    if (units >= 10).any() or (has_hundreds & (text[ends - 4] != _SPACE)).any():
        return None
    # uint8 needs an eighth of the memory of the default int64. All terms fit (at most 99 and 200),
    # and a sum above 255 wraps around to a value below one of its terms.
    hundreds = hundreds * has_hundreds
    below_hundred = units + tens * has_tens * np.uint8(10)
    pixels = below_hundred + hundreds * np.uint8(100)
    if (hundreds > 2).any() or (pixels < below_hundred).any():
        return None
    return pixels.reshape(len(texts), pixel_count)
