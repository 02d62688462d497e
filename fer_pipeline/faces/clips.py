"""Frames of clips at given times: videos, and animated GIF, PNG and WebP images.

The first frame is at time 0. A frame is shown from its own time until the time of the next frame,
and the last one for the duration that the file states for it. All times are compared as fractions,
without rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.extras import explain_missing_packages
from fer_pipeline.faces.animation_decoding import (
    SIGNATURE_SIZE,
    AnimationReader,
    is_animation_format,
)
from fer_pipeline.faces.clip_types import ClipFacts, ClipFrame, ShownFrame
from fer_pipeline.text import one_line

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Endings of the names of videos, in lower case."""

ANIMATION_SUFFIXES = (".gif", ".png", ".webp")
"""Endings of the names of images that may be animated."""

MAX_PIXELS = 100_000_000
"""Largest number of pixels of a frame, as for images."""

_MIN_STEPS = 8
"""Smallest number of sampling times of a segment, so that few frames are decoded twice."""

Source = Path | BinaryIO
"""Path of a clip, or a binary file that can be read and sought."""


@dataclass(frozen=True)
class Segment:
    """A range of the sampling times of a clip.

    Attributes:
        start: Number of the first sampling time.
        stop: Number of the first sampling time after the range; None for the rest of the clip.
    """

    start: int = 0
    stop: int | None = None


def read_clip_facts(source: Source, max_pixels: int = MAX_PIXELS) -> ClipFacts:
    """Read the header and the first frame of a clip.

    Args:
        source: The clip.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        MissingPackageError: The clip is a video, and PyAV is not installed.
        UnreadableFileError: The file is no clip, or no frame can be decoded.
    """
    with _open_reader(source, max_pixels) as reader:
        return reader.read_facts()


def is_animation(source: Source, max_pixels: int = MAX_PIXELS) -> bool:
    """Return whether a file is an animated GIF, PNG or WebP image of several frames.

    Args:
        source: The file.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        UnreadableFileError: The file cannot be read, or is such an image with a damaged header.
    """
    with _open_file(source) as (file, signature):
        if not is_animation_format(signature):
            return False
        reader = AnimationReader(file, max_pixels)
        is_animated = reader.is_animated
        reader.close()
        return is_animated


def sample_frames(
    source: Source, interval: float, segment: Segment = Segment(), max_pixels: int = MAX_PIXELS
) -> Iterator[ClipFrame]:
    """Yield the frames that are shown at the times 0, `interval`, 2 * `interval`, ...

    A frame that is shown at several of these times is yielded once, with the number of the first of
    them. It belongs to the segment that has this number. Therefore the frames of segments that
    cover a clip are exactly the frames of the whole clip.

    Only one frame at a time is in memory, and what the decoder needs. A file that is open stays
    open.

    Args:
        source: The clip.
        interval: Time between the samples in seconds. It is the decimal number that Python prints,
            so that 0.1 is exactly a tenth.
        segment: Range of the sampling times. The decoder starts at the keyframe before it, if the
            clip has one there.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        MissingPackageError: The clip is a video, and PyAV is not installed.
        UnreadableFileError: The file is no clip, or a part of it is damaged or missing. Everything
            that can be read has been yielded before. After damage, frames are left out until the
            next keyframe. The message is the reason, without the name of the file.
    """
    step = Fraction(repr(float(interval)))
    # Frames that appear before this time serve an earlier sampling time, or none.
    start = max(Fraction(0), (segment.start - 1) * step)
    last = None if segment.stop is None else (segment.stop - 1) * step
    with _open_reader(source, max_pixels) as reader:
        for frame in reader.read(start, last):
            index = math.ceil(frame.start / step)
            if index >= segment.start and index * step < frame.end:
                yield ClipFrame(index, float(frame.start), float(frame.end), frame.convert())


def read_frames(source: Source, max_pixels: int = MAX_PIXELS) -> Iterator[ClipFrame]:
    """Yield all frames of a clip.

    Args:
        source: The clip.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        MissingPackageError: The clip is a video, and PyAV is not installed.
        UnreadableFileError: As for `sample_frames`.
    """
    with _open_reader(source, max_pixels) as reader:
        for index, frame in enumerate(reader.read(Fraction(0), None)):
            yield ClipFrame(index, float(frame.start), float(frame.end), frame.convert())


def plan_segments(facts: ClipFacts, interval: float, max_count: int) -> list[Segment]:
    """Divide a clip into segments of about equal length; the last one has no end.

    Args:
        facts: Facts of the clip.
        interval: Time between the samples in seconds.
        max_count: Largest number of segments. A clip has one if it is short, if its duration is
            not known or if its frames can only be read from the start on.
    """
    if facts.duration is None or not facts.can_seek:
        return [Segment()]
    steps = math.ceil(facts.duration / interval)
    count = max(1, min(max_count, steps // _MIN_STEPS))
    starts = [steps * number // count for number in range(count)]
    return [Segment(start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]


class _Reader(Protocol):
    """A reader of one kind of file."""

    def read_facts(self) -> ClipFacts:
        """Return the facts of the clip."""

    def read(self, start: Fraction, last: Fraction | None) -> Iterator[ShownFrame]:
        """Yield all frames that appear in a range of seconds, and perhaps some before it."""

    def close(self) -> None:
        """Close the clip, but not its file."""


@contextlib.contextmanager
def _open_reader(source: Source, max_pixels: int) -> Iterator[_Reader]:
    """Open a clip with the reader for its content; the name of the file has no influence.

    Raises:
        MissingPackageError: The clip is a video, and PyAV is not installed.
        UnreadableFileError: The file is no clip, or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file, signature = stack.enter_context(_open_file(source))
        reader: _Reader
        if is_animation_format(signature):
            reader = AnimationReader(file, max_pixels)
        else:
            with explain_missing_packages():
                from fer_pipeline.faces.video_decoding import VideoReader
            reader = VideoReader(file, max_pixels)
        stack.callback(reader.close)
        yield reader


@contextlib.contextmanager
def _open_file(source: Source) -> Iterator[tuple[BinaryIO, bytes]]:
    """Open a file, unless it is open, and read the bytes that show its format.

    Raises:
        UnreadableFileError: The file cannot be read, or is empty.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = source
            if isinstance(file, Path):
                file = cast(BinaryIO, stack.enter_context(file.open("rb")))
            file.seek(0)
            signature = file.read(SIGNATURE_SIZE)
        except OSError as error:
            raise UnreadableFileError(one_line(error.strerror or error)) from error
        if not signature:
            raise UnreadableFileError("no bytes")
        yield file, signature
