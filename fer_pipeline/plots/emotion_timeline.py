"""Plot of the emotions in a clip: probabilities against time, one panel for each track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from fer_pipeline.faces.emotion_colors import get_color
from fer_pipeline.plots.style import (
    TEXT_GREY,
    add_title,
    format_percentage_axes,
    save_figure,
    style_axes,
)

MAX_TRACKS = 6
"""Largest number of panels; the tracks with the most frames are shown."""

_GAP_FACTOR = 2.5
"""A line is interrupted where two samples are this many times their median distance apart."""

_MAX_MARKERS = 60
"""A track with more samples is drawn without markers."""

_PANEL_HEIGHT = 1.7  # inches
_MINUTE = 60  # seconds
_MAX_TICKS = 10
_TICK_DISTANCES = (15, 30, 60, 120, 300, 600, 1800, 3600)
"""Possible distances of the ticks of a long clip, in seconds."""


@dataclass(frozen=True)
class TrackTimeline:
    """The probabilities of a face of a clip.

    Attributes:
        number: Number of the track.
        times: Times of its n samples in seconds, increasing, float64 of shape (n,).
        probabilities: Probabilities of the classes, float64 of shape (n, classes).
    """

    number: int
    times: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


def draw_emotion_timeline(
    tracks: Sequence[TrackTimeline], classes: Sequence[str], title: str, path: Path
) -> None:
    """Save a plot of the probabilities of all classes against time.

    Each of the tracks with the most samples has a panel, up to MAX_TRACKS. If there are more
    tracks, the second line of the title says so.

    Args:
        tracks: Tracks of a clip.
        classes: Names of the classes.
        title: Title with the name of the clip.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    longest = sorted(tracks, key=lambda track: (-len(track.times), track.number))[:MAX_TRACKS]
    # The panels stand in the order of the tracks' numbers, that is of their first frames.
    panels = sorted(longest, key=lambda track: track.number)
    rows = max(1, len(panels))
    figure = Figure(figsize=(9, 1.5 + _PANEL_HEIGHT * rows), layout="constrained")
    all_axes = figure.subplots(rows, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, track in zip(all_axes, panels, strict=False):
        _draw_track(axes, track, classes)
    if not panels:
        all_axes[0].text(0.5, 0.5, "no faces", ha="center", va="center", color=TEXT_GREY)
    all_axes[-1].set_xlabel("time")
    _format_time_axis(all_axes[-1])
    style_axes(*all_axes)
    format_percentage_axes(*(axes.yaxis for axes in all_axes))
    all_axes[0].set(ylim=(-0.03, 1.03), yticks=(0, 0.5, 1))
    if panels:
        handles, labels = all_axes[0].get_legend_handles_labels()
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=len(classes), frameon=False
        )
        for line in legend.get_lines():  # those of the first track differ
            line.set_linewidth(1.8)
    add_title(figure, title, *_describe_selection(len(panels), len(tracks)))
    save_figure(figure, path)


def _draw_track(axes: Axes, track: TrackTimeline, classes: Sequence[str]) -> None:
    """Draw the curves of a track."""
    times, probabilities = _break_at_gaps(track)
    marker = "o" if len(track.times) <= _MAX_MARKERS else None
    best = set(np.argmax(track.probabilities, axis=1).tolist())
    for index, name in enumerate(classes):
        axes.plot(
            times,
            probabilities[:, index],
            # Classes that are never the most probable one stay in the background.
            linewidth=1.8 if index in best else 1,
            marker=marker,
            markersize=3,
            color=get_color(name, index),
            label=name,
            zorder=3 if index in best else 2,
        )
    samples = "1 sample" if len(track.times) == 1 else f"{len(track.times):,} samples"
    axes.set_title(f"track {track.number}: {samples}", loc="left", fontsize=9, color=TEXT_GREY)


def _break_at_gaps(
    track: TrackTimeline,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return times and probabilities of a track with a row of NaN where the face is missing."""
    times, probabilities = track.times.astype(float), track.probabilities.astype(float)
    distances = np.diff(times)
    if not len(distances):
        return times, probabilities
    gaps = np.flatnonzero(distances > _GAP_FACTOR * np.median(distances)) + 1
    return (
        np.insert(times, gaps, np.nan),
        np.insert(probabilities, gaps, np.nan, axis=0),
    )


def _format_time_axis(axes: Axes) -> None:
    """Label the ticks as seconds, or as minutes and seconds if the clip is long."""
    end = axes.dataLim.x1
    if not end >= 2 * _MINUTE:  # also without data
        axes.xaxis.set_major_locator(MaxNLocator(nbins=_MAX_TICKS, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g} s")
        return
    distance = next((d for d in _TICK_DISTANCES if end / d <= _MAX_TICKS), _TICK_DISTANCES[-1])
    axes.xaxis.set_major_locator(MultipleLocator(distance))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{round(x) // _MINUTE}:{round(x) % _MINUTE:02d}")
    )


def _describe_selection(count: int, total: int) -> list[str]:
    """Return the line about tracks that are not shown; no line if all are."""
    return [f"the {count} longest of {total:,} tracks"] if count < total else []
