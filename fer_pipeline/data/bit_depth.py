"""Conversion of grey values of more than 8 bits to bytes."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.record_batch import Pixels

_BITS = (8, 10, 12, 14, 16)
"""Usual numbers of bits of a pixel in files of 16 bits per pixel."""

_OVERSHOOT = 0.1
"""How far floating point values may lie outside of 0 to 1, as they do after resampling."""


def scale_to_bytes(values: npt.NDArray[np.generic]) -> Pixels:
    """Scale grey values to bytes by what the image holds.

    * Values of 8 bits are returned as they are.
    * Integers of 16 bits are shifted by the bits that no pixel uses: the largest value decides
      whether the image is taken to have 8, 10, 12, 14 or 16 bits.
    * Floating point values are multiplied by 255 if none is larger than 1.1, and clipped.
      If the largest is 2 or more, they are taken as integers.

    Args:
        values: Grey values of any data type, of shape (height, width).

    Returns:
        The image, uint8 of the same shape.

    Raises:
        ValueError: The range of the values is unknown; the text says which range they have.
    """
    if values.dtype == np.uint8:
        return cast(Pixels, values)
    with np.errstate(invalid="ignore"):  # damaged files contain any value
        lowest, highest = float(values.min()), float(values.max())
    is_fraction = values.dtype.kind == "f" and highest <= 1 + _OVERSHOOT
    is_integer = values.dtype.kind != "f" or highest >= 2
    # Comparisons with NaN are false.
    if not (lowest >= -_OVERSHOOT and highest < 2 ** _BITS[-1] and (is_fraction or is_integer)):
        raise ValueError(f"values from {lowest:g} to {highest:g}, which is no known range of grey")
    if is_fraction:
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    integers = np.rint(values.clip(0, 2 ** _BITS[-1] - 1)).astype(np.uint16)
    bits = next(bits for bits in _BITS if int(integers.max()) < 2**bits)
    return (integers >> (bits - 8)).astype(np.uint8)
