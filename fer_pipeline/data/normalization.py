"""Normalisation of pixels, and its exact inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Normalization:
    """The values that a network gets for pixels: pixel * scale + offset, in float32.

    Attributes:
        kind: `centered`, `unit` or `standard`.
        scale: Factor, a float32 number, so that a manifest's decimals restore the same bits.
        offset: Summand, a float32 number likewise.
    """

    kind: str
    scale: float
    offset: float

    @classmethod
    def centered(cls) -> Normalization:
        """Return (x - 128) / 128, the normalisation of reference system A; exact in float32."""
        return cls("centered", 1 / 128, -1.0)

    @classmethod
    def zero_to_one(cls) -> Normalization:
        """Return the usual x / 255, to within one unit in the last place."""
        return cls("unit", float(np.float32(1 / 255)), 0.0)

    @classmethod
    def standard(cls, count: int, total: int, squares: int) -> Normalization:
        """Return (x - mean) / std over the pixels of a split, exact as its sums are whole numbers.

        Args:
            count: Number of pixels.
            total: Sum of their values.
            squares: Sum of the squares of their values.
        """
        mean = total / count
        # Whole numbers up to the last division: no cancellation, and no order of summation.
        variance = (count * squares - total * total) / (count * count)
        scale = 1 / math.sqrt(variance) if variance > 0 else 1.0
        return cls("standard", float(np.float32(scale)), float(np.float32(-mean * scale)))

    def lookup_table(self) -> npt.NDArray[np.float32]:
        """Return the value of each of the 256 pixels: float32 of shape (256,), increasing."""
        return np.arange(256, dtype=np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def restore_pixels(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the pixels that normalised values stand for, exactly.

        Args:
            values: float32 of any shape.

        Raises:
            ValueError: A value stands for no pixel.
        """
        nearest = np.rint((values - np.float32(self.offset)) / np.float32(self.scale))
        pixels = np.nan_to_num(nearest).clip(0, 255).astype(np.uint8)
        if not np.array_equal(self.lookup_table()[pixels], values):
            raise ValueError("the values were not produced by this normalisation")
        return pixels
