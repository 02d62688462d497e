"""Normalisation of pixels, and its exact inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
