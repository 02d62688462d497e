"""Enhancement of images before resizing: denoising, histogram equalisation, local contrast."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

# Defaults of OpenCV, in pixels.
_TEMPLATE_WINDOW = 7
_SEARCH_WINDOW = 21

# The window of Jarrett et al. is 9 pixels wide. Here the width grows with the image and is 9 for
# 48x48 pixels, so that a crop of a large photo is enhanced like the same face in FER2013.
_IMAGE_SIZE_PER_RADIUS = 12
_SIGMA_PER_RADIUS = 0.5625  # standard deviation of the Gaussian window

# Grey levels. The range [0, 255] covers two standard deviations on each side of the mean.
_MEAN_GREY = 128
_GREYS_PER_DEVIATION = 64
_MIN_DEVIATION = 1.0  # grey levels; a smaller deviation is only rounding noise


class Enhancement(BaseModel):
    """Operations on a grey image before resizing, in this order; all are off by default."""

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
        " standard deviation (Gaussian window of 3/16 of the image size). The mean becomes 128, one"
        " standard deviation 64 grey levels.",
    )

    def __str__(self) -> str:
        """Return the enabled operations, such as `denoise=3, equalize`, or `nothing`."""
        enabled = [f"denoise={self.denoise:g}"] if self.denoise else []
        enabled += [name for name in ("equalize", "local_contrast") if getattr(self, name)]
        return ", ".join(enabled) or "nothing"


def enhance(image: npt.NDArray[np.uint8], enhancement: Enhancement) -> npt.NDArray[np.uint8]:
    """Apply the enabled operations to a grey image.

    The order is denoising, histogram equalisation, normalisation of the local contrast. Denoising
    uses OpenCV's `fastNlMeansDenoising` (Buades, Coll, Morel 2011) with windows of 7 and 21 pixels.
    Equalisation uses OpenCV's `equalizeHist`.

    Args:
        image: Grey image, uint8 of shape (height, width).
        enhancement: The enabled operations.

    Returns:
        The enhanced image, uint8 of the same shape; the image itself if all operations are off.
    """
    if enhancement.denoise:
        image = cv2.fastNlMeansDenoising(  # type: ignore[assignment]
            image,
            h=enhancement.denoise,
            templateWindowSize=_TEMPLATE_WINDOW,
            searchWindowSize=_SEARCH_WINDOW,
        )
    if enhancement.equalize:
        image = cv2.equalizeHist(image)  # type: ignore[assignment]
    return normalize_local_contrast(image) if enhancement.local_contrast else image


def normalize_local_contrast(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Subtract the local mean from an image, then divide by the local standard deviation.

    The local means are weighted by a Gaussian window, about min(height, width) / 6 + 1 pixels wide.
    For a 48x48 image it is 9 pixels wide, as in the paper: Jarrett, Kavukcuoglu, Ranzato and LeCun,
    "What is the best multi-stage architecture for object recognition?", ICCV 2009, section 2.1.

    Let x be the pixels and `mean` the local mean: v = x - mean(x), sigma = sqrt(mean(v**2)),
    y = v / max(sigma, mean of sigma over the image, 1 grey level). A divisor below 1 grey level
    would only amplify rounding noise. An image with a single grey level becomes 128 everywhere.

    Args:
        image: Grey image, uint8 of shape (height, width).

    Returns:
        128 + 64 * y, rounded and clipped to [0, 255], uint8 of the same shape. The range covers two
        standard deviations on each side of the mean, which is 99 % of FER2013's pixels. The
        normalisation `centered` maps the returned pixels to y / 2.
    """
    # Double precision makes the rounding to grey levels the same on every machine.
    pixels = image.astype(np.float64)
    centred = pixels - _compute_local_mean(pixels)
    deviation = np.sqrt(_compute_local_mean(np.square(centred)))
    divisor = np.maximum(deviation, max(deviation.mean(), _MIN_DEVIATION))
    normalized = _MEAN_GREY + _GREYS_PER_DEVIATION * centred / divisor
    return np.rint(normalized).clip(0, 255).astype(np.uint8)


def _compute_local_mean(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each pixel's neighbourhood, weighted by a Gaussian window.

    The window is about min(height, width) / 6 + 1 pixels wide: 9 for a 48x48 image.
    """
    radius = max(1, round(min(pixels.shape) / _IMAGE_SIZE_PER_RADIUS))
    width = 2 * radius + 1
    return cv2.GaussianBlur(  # type: ignore[return-value]
        pixels, (width, width), _SIGMA_PER_RADIUS * radius, borderType=cv2.BORDER_REFLECT
    )
