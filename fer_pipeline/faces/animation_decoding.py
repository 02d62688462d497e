"""Decoding of animated GIF, PNG and WebP images with Pillow.

FFmpeg's decoders of these formats differ between versions; Pillow is always installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import Image

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clip_types import ClipFacts, ColorPixels, ShownFrame
from fer_pipeline.text import one_line

_FORMATS = ("GIF", "PNG", "WEBP")

_SIGNATURES = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n")
_RIFF = b"RIFF"
_WEBP = b"WEBP"

SIGNATURE_SIZE = 12
"""Number of bytes that show whether a file is an image."""

_MAX_IGNORED_DURATION = Fraction(1, 100)
"""Durations up to this number of seconds are replaced, as all browsers do."""

_DEFAULT_DURATION = Fraction(1, 10)
"""What they are replaced with, in seconds."""

_BACKGROUND = (255, 255, 255)
"""Colour behind transparent pixels: white, as in `data.image_decoding`."""


def is_animation_format(signature: bytes) -> bool:
    """Return whether a file is in one of the formats that this module reads.

    Args:
        signature: First SIGNATURE_SIZE bytes of the file.
    """
    is_webp = signature[:4] == _RIFF and signature[8:12] == _WEBP
    return is_webp or signature.startswith(_SIGNATURES)


class AnimationReader:
    """Reads the frames of an animated image; an image that is not animated has one frame."""

    def __init__(self, file: BinaryIO, max_pixels: int) -> None:
        """Open an image.

        Args:
            file: File that can be read and sought; it is not closed.
            max_pixels: Largest number of pixels of a frame.

        Raises:
            UnreadableFileError: The header is damaged, or the image is too large.
        """
        file.seek(0)
        try:
            with warnings.catch_warnings():
                # Metadata that cannot be read does not concern the pixels.
                warnings.simplefilter("ignore")
                self._image: Image.Image = Image.open(file, formats=_FORMATS)
                self._frame_count: int = getattr(self._image, "n_frames", 1)
        except Exception as error:
            # Pillow's parsers raise errors of many types for damaged headers.
            raise UnreadableFileError(f"the header is damaged: {one_line(error)}") from error
        # The first image of a PNG file may be for programs that do not play it.
        self._first = 1 if getattr(self._image, "default_image", False) else 0
        width, height = self._image.size
        if width * height > max_pixels:
            raise UnreadableFileError(f"{width}x{height} pixels; input.max_pixels is {max_pixels}")

    @property
    def is_animated(self) -> bool:
        """Mark of an image of several frames."""
        return self._frame_count - self._first > 1

    def close(self) -> None:
        """Release the image; its file stays open."""
        self._image = Image.new("L", (1, 1))

    def read_facts(self) -> ClipFacts:
        """Return the facts of the image; the durations of the frames are known only later."""
        width, height = self._image.size
        return ClipFacts(width, height, None, None, can_seek=False)

    def read(self, start: Fraction, last: Fraction | None) -> Iterator[ShownFrame]:
        """Yield all frames from the first one on, because each is drawn on the one before it.

        Args:
            start: Not used; first time in seconds.
            last: Last time in seconds; None for the end.

        Raises:
            UnreadableFileError: A part of the image is damaged or missing; the frames before it
                have been yielded.
        """
        time = Fraction(0)
        for number in range(self._first, self._frame_count):
            if last is not None and time > last:
                return
            try:
                self._image.seek(number)
                pixels = _convert(self._image)
                end = time + _read_duration(self._image)
            except Exception as error:  # Pillow's decoders raise errors of many types
                raise UnreadableFileError(
                    f"damaged after {float(time):.2f} s: {one_line(error)}"
                ) from error
            yield ShownFrame(time, end, partial(np.asarray, pixels))
            time = end


def _convert(image: Image.Image) -> ColorPixels:
    """Return the colours of the current frame, mixed with white where it is transparent."""
    opaque = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
    opaque.alpha_composite(image.convert("RGBA"))
    return np.ascontiguousarray(np.asarray(opaque)[..., 2::-1])


def _read_duration(image: Image.Image) -> Fraction:
    """Return the duration of the current frame in seconds."""
    # Milliseconds; the times in PNG files are fractions.
    duration = Fraction(image.info.get("duration") or 0).limit_denominator(10**6) / 1000
    return _DEFAULT_DURATION if duration <= _MAX_IGNORED_DURATION else duration
