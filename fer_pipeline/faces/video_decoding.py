"""Decoding of videos with PyAV, the Python package of FFmpeg's libraries (extra `video`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any, BinaryIO, cast

import av
import av.container
import av.stream
import numpy as np

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clip_types import ClipFacts, ColorPixels, ShownFrame
from fer_pipeline.faces.packet_decoding import (
    COLOR_CONVERSION,
    PacketDecoder,
    TimedFrame,
    capture_log,
    describe_error,
    to_fraction,
)
from fer_pipeline.text import one_line

_FORMATS = "mov,matroska,webm,avi"
"""FFmpeg's names of the formats that are read; mov includes MP4. FFmpeg knows more, and some of
them are text files that name other files to open."""

_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
"""Display matrix of a video that is neither turned nor mirrored."""

_FIRST_STEP_BACK = Fraction(1)
"""Seconds to go back if a seek ends after its target; each further step is four times as long."""

_MAX_MISSING_FRAMES = 2
"""Frames by which an AVI file may be shorter than its header states."""


class _GuardedFile:
    """A file whose errors end the reading; FFmpeg would print them, and then go on with others.

    Attributes:
        error: The first error; empty if there is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read from an open file."""
        self.error = ""
        self._file = file

    def read(self, size: int) -> bytes:
        """Return the next bytes; none after an error."""
        try:
            return b"" if self.error else self._file.read(size)
        except Exception as error:  # those of a remote filesystem have many types
            self.error = one_line(error)
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position, and return it."""
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            self.error = self.error or one_line(error)
            return -1

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


class VideoReader:
    """Reads the frames of a video in the order in which they are shown.

    One thread decodes, because Spark runs one worker per core, and because the messages of FFmpeg's
    libraries are kept for one thread.
    """

    def __init__(self, file: BinaryIO, max_pixels: int) -> None:
        """Open a video.

        Args:
            file: File that can be read and sought; it is not closed.
            max_pixels: Largest number of pixels of a frame.

        Raises:
            UnreadableFileError: The file is no video, or its header is damaged.
        """
        self._file = _GuardedFile(file)
        self._max_pixels = max_pixels
        self._display_matrix: tuple[int, ...] = _IDENTITY
        self._open()

    def close(self) -> None:
        """Close the video, but not its file."""
        self._container.close()

    def read_facts(self) -> ClipFacts:
        """Return the facts of the video.

        Raises:
            UnreadableFileError: No frame can be decoded.
        """
        first, _ = self._read_first()
        height, width = self._convert(first.frame).shape[:2]
        duration = self._find_duration()
        return ClipFacts(
            width,
            height,
            None if duration is None else float(duration),
            float(1 / self._frame_duration) if self._frame_duration else None,
            self._can_seek,
        )

    def read(self, start: Fraction, last: Fraction | None) -> Iterator[ShownFrame]:
        """Yield all frames that appear in a range of time, and perhaps some before it.

        After damage, frames are skipped until the next keyframe, because they depend on frames that
        are damaged.

        Args:
            start: First time, in seconds after the first frame.
            last: Last time; None for the end of the video.

        Raises:
            UnreadableFileError: A part of the range is damaged or missing; the frames around it
                have been yielded.
        """
        first, frames = self._read_first()
        origin = first.time
        if start > 0 and self._can_seek:
            frames = self._seek(origin + start, origin)
        end: Fraction | None = origin
        for frame, end in _find_ends(frames):
            if last is not None and frame.time - origin > last:
                end = None
                break
            yield ShownFrame(frame.time - origin, end - origin, partial(self._convert, frame.frame))
        if problem := self._describe_damage(origin, end):
            raise UnreadableFileError(problem)

    def _open(self) -> None:
        """Open the container, and choose its video stream."""
        self._file.seek(0)
        with capture_log() as log:
            try:
                self._container: av.container.InputContainer = av.open(
                    self._file, "r", container_options={"format_whitelist": _FORMATS}
                )
            except (av.FFmpegError, OSError) as error:
                raise UnreadableFileError(
                    self._file.error
                    or "not a video in a known format, or with a damaged header: "
                    + describe_error(error, log)
                ) from error
        # The cover of an audio file is a stream with a single picture.
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & cover]
        if not streams:
            self._container.close()
            raise UnreadableFileError("the file has no video stream")
        self._stream = streams[0]
        self._stream.codec_context.thread_count = 1
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._frame_duration = 1 / to_fraction(rate) if rate else Fraction(0)
        # The times of an AVI file with reordered frames are known only from its start on.
        is_avi = self._container.format.name == "avi"
        self._can_seek = not (is_avi and self._stream.codec_context.has_b_frames)

    def _decode(self, follows_seek: bool) -> Iterator[TimedFrame]:
        """Yield the frames from the current position of the container on."""
        self._decoder = PacketDecoder(
            self._container, self._stream, self._frame_duration, follows_seek
        )
        return iter(self._decoder)

    def _read_first(self) -> tuple[TimedFrame, Iterator[TimedFrame]]:
        """Return the first frame of the video, and all frames.

        Raises:
            UnreadableFileError: No frame can be decoded.
        """
        self._container.close()
        self._open()
        frames = self._decode(follows_seek=False)
        first = next(frames, None)
        if first is None:
            reason = self._file.error or self._decoder.damage.reason or "the video stream is empty"
            raise UnreadableFileError(f"no frame can be decoded: {reason}")
        # That of the first frame is the one of the video. In PyAV 18.1, a frame whose metadata are
        # read is a reference cycle, so that memory grows.
        matrix = first.frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            # PyAV 18 does not declare that this is a buffer.
            self._display_matrix = tuple(np.frombuffer(cast(Any, matrix), np.int32).tolist())
        return first, itertools.chain([first], frames)

    def _seek(self, target: Fraction, origin: Fraction) -> Iterator[TimedFrame]:
        """Yield the frames from a keyframe on that is shown at or before the target.

        Args:
            target: Time in seconds of the stream.
            origin: Time of the first frame.
        """
        position, step = target, _FIRST_STEP_BACK
        time_base = to_fraction(self._stream.time_base)
        while position > origin:
            try:
                with capture_log():
                    self._container.seek(int(position / time_base), stream=self._stream)
            except av.FFmpegError:  # the index is missing or damaged
                break
            frames = self._decode(follows_seek=True)
            first = next(frames, None)
            # A seek goes by decoding times, so that the keyframe may be shown after the target.
            if first is not None and first.time <= target:
                return itertools.chain([first], frames)
            position, step = position - step, step * 4
        return self._read_first()[1]

    def _find_duration(self) -> Fraction | None:
        """Return the duration that the header states, in seconds; None if it states none."""
        if self._stream.duration:
            return self._stream.duration * to_fraction(self._stream.time_base)
        if self._container.duration:
            return Fraction(self._container.duration, av.time_base)
        return None

    def _describe_damage(self, origin: Fraction, end: Fraction | None) -> str:
        """Return why the video cannot be read completely; an empty string if it can.

        Args:
            origin: Time of the first frame, in seconds of the stream.
            end: Time at which the last frame is no longer shown; None if it has not been read.
        """
        damage = self._decoder.damage
        if self._file.error and end is not None:
            return f"cannot be read after {float(end - origin):.2f} s: {self._file.error}"
        if damage.reason:
            time = 0.0 if damage.time is None else float(damage.time - origin)
            skipped = f", {damage.skipped_count} frames skipped" if damage.skipped_count else ""
            return f"damaged after {time:.2f} s: {damage.reason}{skipped}"
        # The other formats report a missing end themselves.
        is_avi = self._container.format.name == "avi"
        if is_avi and end is not None and self._stream.duration:
            expected = self._stream.duration * to_fraction(self._stream.time_base)
            if end - origin < expected - _MAX_MISSING_FRAMES * self._frame_duration:
                seconds = float(end - origin)
                return f"ends after {seconds:.2f} s, but its header states {float(expected):.2f} s"
        return ""

    def _convert(self, frame: av.VideoFrame) -> ColorPixels:
        """Return the colours of a frame as it is shown: upright, and with square pixels.

        Raises:
            UnreadableFileError: The frame has too many pixels.
        """
        aspect = self._stream.sample_aspect_ratio
        stretch = to_fraction(aspect) if aspect else Fraction(1)
        width = max(1, round(frame.width * stretch))
        if width * frame.height > self._max_pixels:
            raise UnreadableFileError(
                f"{width}x{frame.height} pixels; input.max_pixels is {self._max_pixels}"
            )
        pixels = frame.reformat(width, frame.height, "bgr24", **COLOR_CONVERSION).to_ndarray()
        return turn_upright(np.asarray(pixels), self._display_matrix)


def turn_upright(pixels: ColorPixels, matrix: tuple[int, ...]) -> ColorPixels:
    """Turn an image as its metadata say, by a multiple of 90 degrees, and mirror it.

    Args:
        pixels: Image, uint8 of shape (height, width, 3).
        matrix: Display matrix (ISO/IEC 14496-12, 8.2.2), of nine numbers. x and y of the image
            become `matrix[0] * x + matrix[3] * y` and `matrix[1] * x + matrix[4] * y`.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(b) > abs(a):
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    # A negative factor mirrors.
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _find_ends(frames: Iterable[TimedFrame]) -> Iterator[tuple[TimedFrame, Fraction]]:
    """Yield each frame with the time at which it is no longer shown, in seconds of the stream.

    That is when the next frame appears; at the end, and where frames are missing, it is after the
    duration of the frame.
    """
    previous: TimedFrame | None = None
    for frame in frames:
        if previous is not None:
            end = previous.time + previous.duration if frame.follows_gap else frame.time
            yield previous, min(end, frame.time)
        previous = frame
    if previous is not None:
        yield previous, previous.time + previous.duration
