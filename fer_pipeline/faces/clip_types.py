"""Facts of a clip, and its frames with times, as the decoders of all formats return them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

ColorPixels = npt.NDArray[np.uint8]
"""Colour image, uint8 of shape (height, width, 3), in OpenCV's order: blue, green, red."""


@dataclass(frozen=True)
class ClipFacts:
    """Facts of a clip from its header and its first frame.

    Attributes:
        width: Width of the first frame as it is shown, in pixels.
        height: Its height.
        duration: Duration in seconds; None if the header does not state it. It may be wrong.
        frame_rate: Mean number of frames per second; None if it is unknown.
        can_seek: Whether frames in the middle can be read without decoding all frames before them.
            Otherwise it does not save time to read a clip in segments.
    """

    width: int
    height: int
    duration: float | None
    frame_rate: float | None
    can_seek: bool


@dataclass(frozen=True)
class ShownFrame:
    """A frame that is decoded, but not yet converted to colours.

    Attributes:
        start: Time at which the frame appears, in seconds after the first frame.
        end: Time at which the next frame appears, or this one is no longer shown.
        convert: Function that returns the colours of the frame.
    """

    start: Fraction
    end: Fraction
    convert: Callable[[], ColorPixels]


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a clip.

    Attributes:
        index: Number of the sampling time that the frame serves first, see `clips.sample_frames`;
            the number of the frame if all frames are read.
        time: Time at which the frame appears, in seconds after the first frame.
        end: Time at which the next frame appears, or this one is no longer shown.
        pixels: Colours of the frame, upright, uint8 of shape (height, width, 3), BGR.
    """

    index: int
    time: float
    end: float
    pixels: ColorPixels
