"""Decoding of a video's packets: which frames are whole, and what is damaged.

FFmpeg decodes a damaged video as far as it can, and reports damage in three ways: exceptions, flags
of packets and frames, and messages in its log. Frames are predicted from others, so that damage
spreads up to the next keyframe; only the first damaged frame has a flag.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
import av.container
import av.logging

from fer_pipeline.text import one_line

_HARMLESS = re.compile(
    # References that an encoder releases twice; the frames are whole.
    r"mmco: unref short failure|co located POCs unavailable"
)

_CONCERNS_PACKET = re.compile("Truncating packet")
"""Messages about the packet that is read next; others are about what lies before it."""

COLOR_CONVERSION: Mapping[str, Any] = MappingProxyType(
    {
        # Bilinear, with all chroma samples, and with rounding (`libswscale/swscale.h`). Without the
        # latter two, images get darker by 2.5 grey levels.
        "interpolation": 0x2 | 0x2000 | 0x40000,
        # Spark runs one worker per core.
        "threads": 1,
    }
)
"""Options of the conversion of colours."""

LogEntries = list[tuple[int, str, str]]
"""Level, name and text of messages."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        time: Time at which the frame appears, in seconds of the stream.
        duration: Its duration in seconds.
        frame: The frame.
        follows_gap: Whether frames between the previous one and this one are missing.
    """

    time: Fraction
    duration: Fraction
    frame: av.VideoFrame
    follows_gap: bool


@dataclass
class Damage:
    """Damage of a video.

    Attributes:
        reason: Description of the first damage; empty if there is none.
        time: Time of the last whole frame before it, in seconds of the stream; None at the start.
        skipped_count: Number of frames that were decoded, but may depend on damaged ones.
    """

    reason: str = ""
    time: Fraction | None = None
    skipped_count: int = 0


class PacketDecoder:
    """Decodes the packets of a video stream from the current position of its container."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        frame_duration: Fraction,
        follows_seek: bool,
    ) -> None:
        """Set what to decode.

        Args:
            container: The container.
            stream: Its stream.
            frame_duration: Duration of a frame that states none, in seconds.
            follows_seek: Whether the position is not the start. Then the frames before the first
                keyframe are no damage.
        """
        self.damage = Damage()
        self._packets = container.demux(stream)
        self._time_base = to_fraction(stream.time_base)
        self._frame_duration = frame_duration
        # AVI files have no presentation times, and FFmpeg's guesses are not in order. The time of
        # the packet that releases a frame grows by the duration of a frame.
        self._is_avi = container.format.name == "avi"
        self._is_waiting = follows_seek  # for a keyframe
        # After a seek, frames shown before the first keyframe may depend on others before it.
        self._key_time: Fraction | None = None
        self._is_before_key = follows_seek
        self._resume_after: Fraction | None = None
        self._last_time: Fraction | None = None
        self._last_packet_time: Fraction | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the whole frames in the order in which they are shown.

        Frames that are shown for no time are left out.
        """
        is_gap = False
        while (frames := self._decode_next()) is not None:
            for frame in frames:
                time, duration = self._find_time(frame)
                if not self._accept(frame, time):
                    is_gap = True
                elif self._last_time is None or time > self._last_time:
                    self._last_time = time
                    yield TimedFrame(time, duration, frame, is_gap)
                    is_gap = False

    def _decode_next(self) -> list[av.VideoFrame] | None:
        """Return the frames that the next packet releases; None at the end."""
        try:
            with capture_log() as log:
                packet = next(self._packets, None)
        except av.FFmpegError as error:
            self._note_damage(describe_error(error, log), None)
            self._packets = iter(())
            return []
        if packet is None:
            return None
        # The last packet is empty, and releases the frames that the decoder still holds.
        is_last = packet.size == 0 and packet.dts is None
        time = self._read_packet_time(packet)
        if reason := find_error(log):
            self._note_damage(reason, None if is_last else self._last_packet_time)
            if _CONCERNS_PACKET.search(reason):
                self._resume_after = time
        self._last_packet_time = time
        if self._is_before_key and packet.is_keyframe:
            self._is_before_key, self._key_time = False, time
        if packet.is_corrupt:
            self._note_damage("a packet is damaged", time)
        frames: list[av.VideoFrame] = []
        try:
            with capture_log() as log:
                frames = packet.decode()
            reason = find_error(log)
        except av.FFmpegError as error:
            reason = describe_error(error, log)
        if reason:
            self._note_damage(reason, time)
        return frames

    def _accept(self, frame: av.VideoFrame, time: Fraction) -> bool:
        """Return whether a frame is whole."""
        if frame.is_corrupt:
            self._note_damage("a frame is damaged", time)
        if self._is_waiting:
            is_late_enough = self._resume_after is None or time > self._resume_after
            self._is_waiting = not (frame.key_frame and is_late_enough)
        if self._is_waiting:
            self.damage.skipped_count += bool(self.damage.reason)
            return False
        return True

    def _note_damage(self, reason: str, resume_after: Fraction | None) -> None:
        """Keep the first reason, and skip frames until a keyframe.

        Args:
            reason: Description of the damage.
            resume_after: Time of the stream before which no frame is whole any more; None if all
                frames that the decoder still holds are whole.
        """
        key_time = self._key_time
        is_early = bool(key_time and resume_after is not None and resume_after < key_time)
        if self._is_before_key or is_early:
            return
        if not self.damage.reason:
            self.damage.reason = reason
            self.damage.time = self._last_time
        if resume_after is not None:
            self._is_waiting = True
            self._resume_after = max(resume_after, self._resume_after or resume_after)

    def _find_time(self, frame: av.VideoFrame) -> tuple[Fraction, Fraction]:
        """Return the time and the duration of a frame, in seconds."""
        duration = self._frame_duration
        if frame.duration:
            duration = frame.duration * self._time_base
        ticks = frame.dts if self._is_avi or frame.pts is None else frame.pts
        if ticks is not None:
            return ticks * self._time_base, duration
        # Frames that the decoder releases at the end of an AVI file.
        return (self._last_time or Fraction(0)) + duration, duration

    def _read_packet_time(self, packet: av.Packet[Any]) -> Fraction | None:
        """Return the time of a packet in seconds of the stream."""
        ticks = packet.dts if self._is_avi or packet.pts is None else packet.pts
        return None if ticks is None else ticks * self._time_base


@contextlib.contextmanager
def capture_log() -> Iterator[LogEntries]:
    """Keep the messages of FFmpeg's libraries about errors; they are not written to stderr."""
    level, skips_repeated = av.logging.get_level(), av.logging.get_skip_repeated()
    # A message that is held back would be added to those of another file.
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips_repeated)


def find_error(log: LogEntries) -> str:
    """Return the first message about damage; an empty string if there is none."""
    lines = (one_line(text) for _, _, text in log)
    return next((line for line in lines if line and not _HARMLESS.search(line)), "")


def describe_error(error: Exception, log: LogEntries) -> str:
    """Return an error of PyAV as one line; FFmpeg's message is clearer where it has one."""
    return find_error(log) or one_line(getattr(error, "strerror", None) or error)


def to_fraction(rational: Any) -> Fraction:
    """Convert a number of PyAV, whose type depends on its version."""
    return Fraction(rational.numerator, rational.denominator)
