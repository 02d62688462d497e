"""Faces in the sampled frames of clips: found, linked to tracks, and smoothed along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.image_decoding import DecodedFile
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clips import MAX_PIXELS, Segment, Source, sample_frames
from fer_pipeline.faces.photographs import FaceOptions, find_faces_in_image
from fer_pipeline.faces.tracking import link_faces, smooth_probabilities

_WHOLE = Segment()


class ClipFace(NamedTuple):
    """A face of a sampled frame; a frame without a face; or what cannot be read of a clip.

    Attributes:
        frame: Number of the sampling time; None if the clip cannot be read, or not to its end.
        time: Time at which the frame appears, in seconds after the first frame; None if there is
            no frame.
        file: The aligned face, or the problem.
    """

    frame: int | None
    time: float | None
    file: DecodedFile


def find_faces_in_clip(
    source: Source,
    interval: float,
    options: FaceOptions,
    segment: Segment = _WHOLE,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[ClipFace]:
    """Yield the faces of the sampled frames of a clip, in the order of the frames.

    Args:
        source: The clip.
        interval: Time between the samples in seconds, see `clips.sample_frames`.
        options: Options of the search; the mode is always `detect`.
        segment: Range of the sampling times.
        max_pixels: Largest number of pixels of a frame.

    Raises:
        MissingPackageError: The clip is a video, and PyAV is not installed; or the networks of the
            detector are not installed.
    """
    options = replace(options, mode="detect")
    try:
        for frame in sample_frames(source, interval, segment, max_pixels):
            image = np.ascontiguousarray(frame.pixels[..., ::-1])
            for file in find_faces_in_image(image, options):
                yield ClipFace(frame.index, frame.time, file)
    except UnreadableFileError as error:
        yield describe_unreadable_clip(str(error))


def describe_unreadable_clip(reason: str) -> ClipFace:
    """Return what stands for that which cannot be read of a clip."""
    return ClipFace(None, None, DecodedFile(None, (Outcome.UNREADABLE_FILE, reason)))


def link_clip_faces(faces: Sequence[ClipFace]) -> list[int | None]:
    """Return the number of the track of each face of a clip; None for what is no face.

    Args:
        faces: What was found in all frames of the clip, in the order of the frames.
    """
    numbers: dict[int, int] = {}  # track of a face, by its position in `faces`
    positions: dict[float, list[int]] = {}
    for position, face in enumerate(faces):
        if face.time is not None:
            rows = positions.setdefault(face.time, [])
            if face.file.face is not None:
                rows.append(position)
    boxes = [
        np.array([_get_box(faces[row]) for row in rows], np.float32).reshape(-1, 4)
        for rows in positions.values()
    ]
    tracks = link_faces(list(positions), boxes)
    for rows, frame_tracks in zip(positions.values(), tracks, strict=True):
        numbers.update(zip(rows, frame_tracks.tolist(), strict=True))
    return [numbers.get(position) for position in range(len(faces))]


def _get_box(face: ClipFace) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a face."""
    row = face.file.face
    assert row is not None
    return row.left, row.top, row.width, row.height


def smooth_tracks(
    tracks: npt.NDArray[np.int64],
    times: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float32],
    half_width: float,
) -> npt.NDArray[np.float32]:
    """Smooth the probabilities of the faces of a clip along their tracks.

    Args:
        tracks: Number of the track of each face, of shape (n,).
        times: Time of each face in seconds, increasing along each track, of shape (n,).
        probabilities: Probabilities of the classes, float32 of shape (n, classes).
        half_width: Half of the width of the window in seconds; 0 smooths nothing.

    Returns:
        float32 of shape (n, classes).
    """
    if half_width <= 0:
        return probabilities
    smoothed = np.empty_like(probabilities)
    for track in np.unique(tracks):
        rows = np.flatnonzero(tracks == track)
        smoothed[rows] = smooth_probabilities(
            times[rows], probabilities[rows].astype(np.float64), half_width
        )
    return smoothed
