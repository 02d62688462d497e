"""Annotated copies of scored clips: a video, and a plot and a table of emotions against time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.extras import is_installed
from fer_pipeline.io import storage
from fer_pipeline.spark.find_clips import open_clip

Row = dict[str, Any]

VIDEO_SUFFIX = ".webm"
PLOT_SUFFIX = ".timeline.png"
TABLE_SUFFIX = ".timeline.csv"
"""Endings of the names of the three files of a clip, after the name of the clip."""

_BOX = ("left", "top", "width", "height")
_TABLE_COLUMNS = ("frame", "time", "track", "face", "emotion", "confidence")


@dataclass(frozen=True)
class ScoredClip:
    """A clip with its scores.

    Attributes:
        source: Name of the clip, as in the scores.
        rows: Rows of its faces, of frames without a face, and of what cannot be read.
        target: Path of the copies, without an ending.
    """

    source: str
    rows: list[Row]
    target: Path


@dataclass(frozen=True)
class ClipAnnotator:
    """A function that writes the copies of a clip; it runs in a decoder process.

    Attributes:
        classes: Emotions in the order of the model's outputs.
        max_pixels: Largest number of pixels of a frame.
    """

    classes: tuple[str, ...]
    max_pixels: int

    def __call__(self, clip: ScoredClip) -> bool:
        """Write the copies, and return whether the clip could be read again.

        Raises:
            StorageError: A file cannot be written.
        """
        # PyAV is needed only for clips.
        from fer_pipeline.faces.clip_video import write_annotated_video

        frames = sorted(
            (row for row in clip.rows if row["time"] is not None),
            key=lambda row: (row["frame"], row["face"] or 0),
        )
        samples = [
            _describe_sample(time, list(rows), self.classes)
            for time, rows in groupby(frames, lambda row: row["time"])
        ]
        video = clip.target.with_name(clip.target.name + VIDEO_SUFFIX)
        try:
            with open_clip(clip.source) as file:
                write_annotated_video(file, samples, self.classes, video, self.max_pixels)
        except UnreadableFileError:
            return False
        faces = [row for row in frames if row["track"] is not None]
        _write_table(clip.target.with_name(clip.target.name + TABLE_SUFFIX), faces, self.classes)
        if can_draw_plots():
            self._draw_plot(clip, faces)
        return True

    def _draw_plot(self, clip: ScoredClip, faces: Sequence[Row]) -> None:
        """Draw the probabilities of the tracks against time."""
        from fer_pipeline.plots.emotion_timeline import TrackTimeline, draw_emotion_timeline

        scored = [row for row in faces if row["emotion"] is not None]
        scored.sort(key=lambda row: (row["track"], row["time"]))
        tracks = []
        for number, group in groupby(scored, lambda row: row["track"]):
            rows = list(group)
            times = np.array([row["time"] for row in rows], np.float64)
            tracks.append(TrackTimeline(number, times, _get_probabilities(rows, self.classes)))
        plot = clip.target.with_name(clip.target.name + PLOT_SUFFIX)
        title = clip.source.rsplit("/", 1)[-1]
        draw_emotion_timeline(tracks, self.classes, title, plot)


def can_draw_plots() -> bool:
    """Return whether plots can be drawn here; workers may lack matplotlib."""
    return is_installed("matplotlib")


def _describe_sample(time: float, rows: Sequence[Row], classes: Sequence[str]) -> Any:
    """Return the faces of a frame as `SampledFaces`."""
    from fer_pipeline.faces.clip_video import SampledFaces

    faces = [row for row in rows if row["track"] is not None]
    return SampledFaces(
        time,
        np.array([row["track"] for row in faces], np.int64),
        np.array([[row[name] for name in _BOX] for row in faces], np.float32).reshape(-1, 4),
        _get_probabilities(faces, classes),
    )


def _get_probabilities(rows: Sequence[Row], classes: Sequence[str]) -> Any:
    """Return the probabilities of faces, float64 of shape (n, classes); NaN without a score."""
    values = [[row[f"p_{name}"] for name in classes] for row in rows]
    return np.array(values, np.float64).reshape(-1, len(classes))


def _write_table(path: Path, faces: Sequence[Row], classes: Sequence[str]) -> None:
    """Write the scores of the faces of a clip as CSV, in the order of time.

    Raises:
        StorageError: The file cannot be written.
    """
    names = [*_TABLE_COLUMNS, *(f"p_{name}" for name in classes), "reason"]
    with (
        storage.atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(faces)
