"""Making faces easier to see before they are scaled: denoising, equalisation, local contrast."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

_TEMPLATE, _SEARCH = 7, 21  # OpenCV's own, in pixels

# Jarrett's window is 9 pixels wide. Here it grows with the image, 9 being that of a 48x48 one:
# a crop of a photo is to look as the same face of FER2013 does.
_SIDE_PER_RADIUS = 12
_SIGMA_PER_RADIUS = 0.5625  # that of the Gaussian, from the centre of the window to its edge

_GREY, _GREYS_PER_DEVIATION = 128, 64  # two deviations either way are the whole range
_QUANTISATION = 1.0


class Enhancement(BaseModel):
    """What is done to a grey image before it is scaled; in this order, and nothing by default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    denoise: float = Field(
        0.0,
        ge=0,
        le=255,
        description="Strength h of non-local means denoising, in grey levels; 0 disables it, 3 to"
        " 10 are usual.",
    )
    equalize: bool = Field(False, description="Equalise the histogram of each image.")
    local_contrast: bool = Field(
        False,
        description="Normalise the local contrast: subtract the local mean and divide by the local"
        " standard deviation (Gaussian window of 3/16 of the side). The mean becomes 128, one"
        " standard deviation 64 grey levels.",
    )

    def __str__(self) -> str:
        """What is on, such as `denoise=3.0, equalize`; `nothing` where all is off."""
        on = [f"denoise={self.denoise:g}"] if self.denoise else []
        on += [name for name in ("equalize", "local_contrast") if getattr(self, name)]
        return ", ".join(on) or "nothing"


def enhance(image: npt.NDArray[np.uint8], how: Enhancement) -> npt.NDArray[np.uint8]:
    """Denoises, then equalises, then normalises the local contrast, as far as each is on.

    Denoising is OpenCV's `fastNlMeansDenoising` (Buades, Coll, Morel 2011) with windows of 7 and 21
    pixels, equalisation its `equalizeHist`.

    Args:
        image: uint8 of shape (height, width).
        how: What is on.

    Returns:
        uint8 of the same shape; the image itself where all is off.
    """
    if how.denoise:
        image = cv2.fastNlMeansDenoising(  # type: ignore[assignment]
            image,
            h=how.denoise,
            templateWindowSize=_TEMPLATE,
            searchWindowSize=_SEARCH,
        )
    if how.equalize:
        image = cv2.equalizeHist(image)  # type: ignore[assignment]
    return normalize_local_contrast(image) if how.local_contrast else image


def normalize_local_contrast(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Subtracts the local mean, then divides by the local deviation.

    v = x - mean(x), y = v / max(sigma, mean of sigma over the image), sigma = sqrt(mean(v**2)), the
    means being weighted by a Gaussian window: Jarrett, Kavukcuoglu, Ranzato and LeCun, "What is the
    best multi-stage architecture for object recognition?", ICCV 2009, section 2.1. A divisor below
    one grey level would amplify nothing but rounding, so it is at least that; an image of one grey
    becomes 128 everywhere. The window is a sixth of the shorter side plus a pixel wide (9 for 48,
    as there).

    Args:
        image: uint8 of shape (height, width).

    Returns:
        128 + 64 * y, rounded and clipped, uint8 of the same shape: two deviations either way fit,
        and with them 99 % of FER2013's pixels. The normalisation `centered` makes y / 2 of it.
    """
    # In double precision, so that rounding to grey levels is the same on every machine.
    pixels = image.astype(np.float64)
    centred = pixels - _local_mean(pixels)
    deviation = np.sqrt(_local_mean(np.square(centred)))
    divisor = np.maximum(deviation, max(deviation.mean(), _QUANTISATION))
    values = _GREY + _GREYS_PER_DEVIATION * centred / divisor
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _local_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    radius = max(1, round(min(values.shape) / _SIDE_PER_RADIUS))
    width = 2 * radius + 1
    return cv2.GaussianBlur(  # type: ignore[return-value]
        values, (width, width), _SIGMA_PER_RADIUS * radius, borderType=cv2.BORDER_REFLECT
    )
