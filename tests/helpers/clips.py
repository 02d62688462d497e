"""Clips for tests, written by real encoders."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clip_types import ClipFrame
from fer_pipeline.faces.clips import Segment, sample_frames

Pixels = npt.NDArray[np.uint8]

WHOLE_CLIP = Segment()

MILLISECONDS = Fraction(1, 1000)


@dataclass(frozen=True)
class Encoding:
    """Encoder and format of a video.

    Attributes:
        format: FFmpeg's name of the format of the file.
        codec: FFmpeg's name of the encoder.
        options: Options of the encoder.
        format_options: Options of the format.
        rotation: Angle of the display matrix in degrees, counterclockwise.
        mirrored: Whether the display matrix mirrors left and right, after the rotation.
    """

    format: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    format_options: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    mirrored: bool = False


_X264 = {"g": "10", "bf": "3", "preset": "ultrafast", "x264-params": "b-adapt=0", "crf": "18"}
_VP9 = {"g": "10", "deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"}

ENCODINGS = {
    "h264.mp4": Encoding("mp4", "libx264", _X264),
    "h264_faststart.mp4": Encoding("mp4", "libx264", _X264, {"movflags": "faststart"}),
    "h264_fragmented.mp4": Encoding(
        "mp4", "libx264", _X264, {"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264_open_gop.mp4": Encoding(
        "mp4", "libx264", {**_X264, "x264-params": "b-adapt=0:open-gop=1:keyint=10"}
    ),
    "h264_intra_refresh.mkv": Encoding(
        "matroska", "libx264", {**_X264, "bf": "0", "x264-params": "intra-refresh=1"}
    ),
    "h264.mov": Encoding("mov", "libx264", _X264),
    "h264.mkv": Encoding("matroska", "libx264", _X264),
    "h264.avi": Encoding("avi", "libx264", _X264),
    "h265.mp4": Encoding(
        "mp4", "libx265", {"preset": "ultrafast", "x265-params": "keyint=10:bframes=3:log-level=0"}
    ),
    "vp9.webm": Encoding("webm", "libvpx-vp9", _VP9),
    "vp9_live.webm": Encoding("webm", "libvpx-vp9", _VP9, {"live": "1"}),
    "mjpeg.avi": Encoding("avi", "mjpeg", {"q": "3"}),
    "mpeg4_b_frames.avi": Encoding("avi", "mpeg4", {"g": "10", "bf": "2", "b": "2000000"}),
    "mpeg4.avi": Encoding("avi", "mpeg4", {"g": "10", "b": "2000000"}),
}
"""Encodings, by a name that ends like that of a file."""


def make_pictures(count: int, size: tuple[int, int] = (96, 80)) -> list[Pixels]:
    """Return pictures that differ, each BGR of width and height `size`.

    The astronaut moves and grows, and a bar shows the number of the picture.
    """
    astronaut = skimage.data.astronaut()[:256, 128:384, ::-1]
    width, height = size
    pictures = []
    for number in range(count):
        scale = min(size) / 256 * (1 + 0.01 * number)
        move = np.array([[scale, 0, number % 20], [0, scale, 0]], np.float32)
        picture = cv2.warpAffine(
            astronaut, move, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
        )
        picture[height - 8 :] = 30
        picture[height - 8 :, : 1 + number * (width - 1) // max(1, count)] = 230
        pictures.append(np.asarray(picture, np.uint8))
    return pictures


def encode_video(
    pictures: Sequence[Pixels],
    encoding: Encoding,
    rate: int = 25,
    times: Sequence[int] | None = None,
) -> bytes:
    """Return a video as the bytes of its file.

    Args:
        pictures: Pictures, BGR.
        encoding: How to encode them.
        rate: Pictures per second.
        times: Times of the pictures in milliseconds, for a variable rate.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        _write_video(path, pictures, encoding, rate, times)
        return path.read_bytes()


def _write_video(
    path: Path,
    pictures: Sequence[Pixels],
    encoding: Encoding,
    rate: int,
    times: Sequence[int] | None,
) -> None:
    """Write a video; the arguments are those of `encode_video`."""
    options = encoding.format_options
    with av.open(str(path), "w", format=encoding.format, options=options) as container:
        stream: Any = container.add_stream(encoding.codec, rate=rate, options=encoding.options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if encoding.codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        if encoding.rotation or encoding.mirrored:
            stream.set_display_rotation(encoding.rotation, hflip=encoding.mirrored)
        if times is not None:
            stream.codec_context.time_base = MILLISECONDS
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            if times is not None:
                frame.pts, frame.time_base = times[number], MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def encode_animation(
    pictures: Sequence[Pixels], name: str, durations: int | Sequence[int], **options: Any
) -> bytes:
    """Return an animated image as the bytes of its file.

    Args:
        pictures: Pictures, BGR.
        name: Pillow's name of the format: GIF, PNG or WEBP.
        durations: Durations of the pictures in milliseconds.
        options: Options of Pillow.
    """
    file = io.BytesIO()
    images = [Image.fromarray(np.ascontiguousarray(picture[..., ::-1])) for picture in pictures]
    images[0].save(
        file,
        format=name,
        save_all=True,
        append_images=images[1:],
        duration=durations if isinstance(durations, int) else list(durations),
        **options,
    )
    return file.getvalue()


def encode_sound(format_name: str, seconds: float = 0.5, cover: Pixels | None = None) -> bytes:
    """Return a file with sound only, and perhaps with a cover.

    Args:
        format_name: FFmpeg's name of the format.
        seconds: Duration.
        cover: Picture of the cover, BGR.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as container:
        codec = "libopus" if format_name == "webm" else "aac"
        sound: Any = container.add_stream(codec, rate=48000)
        sound.layout = "mono"
        picture: Any = None
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width = cover.shape[:2]
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="bgr24")))
            container.mux(picture.encode())
        frame_format = "flt" if format_name == "webm" else "fltp"
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, int(48000 * seconds)), np.float32), format=frame_format, layout="mono"
        )
        frame.sample_rate, frame.pts = 48000, 0
        resampler = av.AudioResampler(frame_format, "mono", 48000, frame_size=960)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode())
    return file.getvalue()


def read_samples(
    content: bytes | Path, interval: float, segment: Segment = WHOLE_CLIP
) -> tuple[list[ClipFrame], str | None]:
    """Return the frames of a clip, and why it could not be read completely; None if it could."""
    frames: list[ClipFrame] = []
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        frames.extend(sample_frames(source, interval, segment))  # keeps those before an error
    except UnreadableFileError as error:
        return frames, str(error)
    return frames, None


def describe_frames(frames: Sequence[ClipFrame]) -> list[tuple[int, float, float, bytes]]:
    """Return frames as values that can be compared, with all pixels."""
    return [(frame.index, frame.time, frame.end, frame.pixels.tobytes()) for frame in frames]
