"""Annotated videos of clips, in a format that browsers play: VP9 in WebM.

PyAV (BSD-3-Clause) writes them with the encoder of libvpx (BSD-3-Clause). PyAV's wheels also hold
encoders under the GPL, x264 and x265, which are not used.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.annotation import AnnotatedFace, draw_faces
from fer_pipeline.faces.clip_types import ClipFrame, ColorPixels
from fer_pipeline.faces.clips import MAX_PIXELS, Source, read_frames
from fer_pipeline.faces.packet_decoding import COLOR_CONVERSION
from fer_pipeline.io import storage

SUFFIX = ".webm"

_TIME_BASE = Fraction(1, 1000)
"""Unit of the times in a WebM file, in seconds."""

_ENCODER_OPTIONS = {
    # Constant quality; 31 is what Google recommends for 1080 lines.
    "crf": "31",
    "b": "0",
    # Twice as fast as the default, with files that are a tenth larger.
    "deadline": "good",
    "cpu-used": "5",
    "row-mt": "1",
}

_BT709 = 1
"""Colour matrix, and its number in FFmpeg."""

_LIMITED_RANGE = 1


@dataclass(frozen=True)
class SampledFaces:
    """The n faces of a frame of a clip that was sampled.

    Attributes:
        time: Time of the frame, in seconds after the first frame.
        tracks: Number of the track of each face, int64 of shape (n,); unique.
        boxes: Left, top, width and height of each face in pixels, float32 of shape (n, 4).
        probabilities: Probabilities of the classes, float64 of shape (n, classes). A row of NaN has
            none.
    """

    time: float
    tracks: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True)
class WrittenVideo:
    """Report about a video that was written.

    Attributes:
        frame_count: Number of frames.
        problem: Why the clip could not be read completely; None if it could.
    """

    frame_count: int
    problem: str | None


def write_annotated_video(
    source: Source,
    samples: Sequence[SampledFaces],
    classes: Sequence[str],
    path: Path,
    max_pixels: int = MAX_PIXELS,
) -> WrittenVideo:
    """Write a video with all frames of a clip at their times, and the faces of its samples.

    Between two samples, the box and the probabilities of a track that both have move evenly from
    one to the other. A track that only the earlier one has stays as it is until the later one, and
    after the last sample all stay. There is no sound.

    Args:
        source: The clip. A damaged one is written as far as it can be read.
        samples: Faces of the sampled frames, in the order of their times.
        classes: Names of the classes.
        path: Path of the video, which is replaced when it is complete.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        StorageError: The file cannot be written.
        UnreadableFileError: The clip has no frame that can be read.
    """
    problem: str | None = None
    count = 0
    with storage.atomic_write(path) as temporary, _Writer(temporary) as writer:
        try:
            for frame in read_frames(source, max_pixels):
                faces = interpolate_faces(samples, frame.time)
                writer.write(frame, draw_faces(frame.pixels, faces, classes))
                count += 1
        except UnreadableFileError as error:
            if not count:
                raise
            problem = str(error)
    return WrittenVideo(count, problem)


def interpolate_faces(samples: Sequence[SampledFaces], time: float) -> list[AnnotatedFace]:
    """Return the faces at a time, as `write_annotated_video` describes it.

    Args:
        samples: Faces of the sampled frames, in the order of their times.
        time: Time in seconds after the first frame.
    """
    position = bisect.bisect_right([sample.time for sample in samples], time)
    if not position:
        return []
    before = samples[position - 1]
    after = samples[position] if position < len(samples) else None
    faces = []
    for track, box, row in zip(before.tracks, before.boxes, before.probabilities, strict=True):
        if after is not None and track in after.tracks:
            index = int(np.flatnonzero(after.tracks == track)[0])
            weight = (time - before.time) / (after.time - before.time)
            box = (1 - weight) * box + weight * after.boxes[index]
            next_row = after.probabilities[index]
            if not np.isnan(next_row).any() and not np.isnan(row).any():
                row = (1 - weight) * row + weight * next_row
        faces.append(AnnotatedFace(box, None if np.isnan(row).any() else row))
    return faces


class _Writer:
    """Writes the frames of a video."""

    def __init__(self, path: Path) -> None:
        """Open a file that is replaced."""
        self._container = av.open(str(path), "w", format="webm")
        self._stream: av.VideoStream | None = None
        self._last_ticks = -1

    def __enter__(self) -> _Writer:
        """Return the writer."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what the encoder still holds, and close the file."""
        if self._stream is not None and exception[0] is None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def write(self, frame: ClipFrame, pixels: ColorPixels) -> None:
        """Write a frame.

        Args:
            frame: Frame of the clip, for its times.
            pixels: Colours to write, uint8 of shape (height, width, 3), BGR. Frames of another size
                than the first one are resized.
        """
        stream = self._stream or self._add_stream(frame, pixels.shape[1], pixels.shape[0])
        if pixels.shape[:2] != (stream.height, stream.width):
            resized = cv2.resize(pixels, (stream.width, stream.height))
            pixels = np.asarray(resized, np.uint8)
        converted = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24")
        converted = converted.reformat(
            format="yuv420p", dst_colorspace="ITU709", **COLOR_CONVERSION
        )
        # Two frames of a clip may be less than a millisecond apart.
        ticks = max(self._last_ticks + 1, round(frame.time / _TIME_BASE))
        converted.pts, converted.time_base = ticks, _TIME_BASE
        converted.duration = max(1, round(frame.end / _TIME_BASE) - ticks)
        self._container.mux(stream.encode(converted))
        self._last_ticks = ticks

    def _add_stream(self, first: ClipFrame, width: int, height: int) -> av.VideoStream:
        """Add the stream.

        Args:
            first: First frame; players show the last frame as long as this one.
            width: Width of the stream in pixels.
            height: Its height.
        """
        duration = max(_TIME_BASE, Fraction(first.end - first.time).limit_denominator(100_000))
        stream = self._container.add_stream(
            "libvpx-vp9", rate=1 / duration, options=_ENCODER_OPTIONS
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.colorspace = _BT709
        stream.codec_context.color_range = _LIMITED_RANGE
        self._stream = stream
        return stream
