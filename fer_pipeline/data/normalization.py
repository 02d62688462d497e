"""Normalisation of pixels to the input values of a network, and its exact inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Normalization:
    """A linear map of pixels to the input values of a network: pixel * scale + offset, in float32.

    Scale and offset are exactly representable in float32, so that reading them from the decimal
    numbers of a manifest restores the same bits.

    Attributes:
        kind: `centered`, `unit` (the map to [0, 1]) or `standard`.
        scale: Factor of a pixel.
        offset: Constant that is added to the product.
    """

    kind: str
    scale: float
    offset: float

    @classmethod
    def centered(cls) -> Normalization:
        """Return the normalisation (x - 128) / 128, which is exact in float32."""
        return cls("centered", 1 / 128, -1.0)

    @classmethod
    def zero_to_one(cls) -> Normalization:
        """Return the normalisation x / 255 to the range [0, 1].

        It multiplies x by the rounded factor 1/255. The product differs from x / 255 by at most
        1 ulp.
        """
        return cls("unit", float(np.float32(1 / 255)), 0.0)

    @classmethod
    def standard(cls, count: int, total: int, squares: int) -> Normalization:
        """Return the normalisation (x - mean) / std, with the mean and std of a set of pixels.

        If all pixels are equal, std is 0 and is replaced by 1.

        Args:
            count: Number of pixels.
            total: Sum of the pixels.
            squares: Sum of the squared pixels.
        """
        mean = total / count
        # Integer arithmetic before the only division avoids cancellation and makes the result
        # independent of the order of summation.
        variance = (count * squares - total * total) / (count * count)
        scale = 1 / math.sqrt(variance) if variance > 0 else 1.0
        return cls("standard", float(np.float32(scale)), float(np.float32(-mean * scale)))

    def lookup_table(self) -> npt.NDArray[np.float32]:
        """Return the normalised values of the pixels 0 to 255, float32 of shape (256,)."""
        return np.arange(256, dtype=np.float32) * np.float32(self.scale) + np.float32(self.offset)

    def restore_pixels(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Convert normalised values back to exactly the original pixels.

        Args:
            values: Normalised values, float32 of any shape.

        Returns:
            The pixels, uint8 of the same shape.

        Raises:
            ValueError: A value is not the normalised value of any pixel.
        """
        nearest = np.rint((values - np.float32(self.offset)) / np.float32(self.scale))
        pixels = np.nan_to_num(nearest).clip(0, 255).astype(np.uint8)
        if not np.array_equal(self.lookup_table()[pixels], values):
            raise ValueError("the values were not produced by this normalisation")
        return pixels
