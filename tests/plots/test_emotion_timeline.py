from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fer_pipeline.errors import StorageError
from fer_pipeline.plots import emotion_timeline
from fer_pipeline.plots.emotion_timeline import TrackTimeline, draw_emotion_timeline
from fer_pipeline.plots.style import save_figure

CLASSES = ("angry", "happy", "neutral")


def make_track(number: int, times: Sequence[float]) -> TrackTimeline:
    probabilities = np.random.default_rng(number).dirichlet(np.ones(3), len(times))
    return TrackTimeline(number, np.array(times), probabilities)


@pytest.fixture
def draw_figure(monkeypatch, tmp_path):
    """Return a function that draws tracks and returns the figure."""
    figures: list[Figure] = []

    def save_and_keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save_figure(figure, path)

    monkeypatch.setattr(emotion_timeline, "save_figure", save_and_keep)

    def draw_tracks(tracks: list[TrackTimeline]) -> Figure:
        draw_emotion_timeline(tracks, CLASSES, "about $x", tmp_path / "timeline.png")
        assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return draw_tracks


def test_each_class_has_a_curve_of_its_probabilities_against_time(draw_figure):
    track = make_track(3, [0.0, 0.5, 1.0, 1.5])
    (axes,) = draw_figure([track]).axes
    assert [line.get_label() for line in axes.lines] == list(CLASSES)
    for line, column in zip(axes.lines, track.probabilities.T, strict=True):
        np.testing.assert_array_equal(np.asarray(line.get_xydata()), np.c_[track.times, column])
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.get_title(loc="left") == "track 3: 4 samples"


def test_a_curve_is_interrupted_while_the_face_is_missing(draw_figure):
    (axes,) = draw_figure([make_track(1, [0.0, 0.5, 1.0, 4.0, 4.5])]).axes
    times = np.asarray(axes.lines[0].get_xdata())
    np.testing.assert_array_equal(times, [0, 0.5, 1, np.nan, 4, 4.5])


def test_the_longest_tracks_are_shown_in_their_order_and_the_title_says_so(draw_figure):
    lengths = [3, 9, 2, 8, 7, 6, 5, 9]
    tracks = [make_track(i + 1, np.arange(n).tolist()) for i, n in enumerate(lengths)]
    figure = draw_figure(tracks)
    titles = [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes]
    assert titles == ["track 2", "track 4", "track 5", "track 6", "track 7", "track 8"]
    assert figure.get_suptitle() == "about $x\nthe 6 longest of 8 tracks"
    assert draw_figure(tracks[:6]).get_suptitle() == "about $x"


def test_the_times_of_a_long_clip_are_minutes(draw_figure):
    figure = draw_figure([make_track(1, np.arange(0, 700, 5.0).tolist())])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert {"0:00", "2:00", "10:00"} <= set(labels)
    short = draw_figure([make_track(1, [0.0, 1.0, 2.0])])
    assert "1 s" in [label.get_text() for label in short.axes[0].get_xticklabels()]


def test_a_clip_without_faces_and_a_track_of_one_sample(draw_figure):
    assert [text.get_text() for text in draw_figure([]).axes[0].texts] == ["no faces"]
    (axes,) = draw_figure([make_track(1, [2.0])]).axes
    assert axes.get_title(loc="left") == "track 1: 1 sample"
    assert axes.lines[0].get_marker() == "o"


def test_an_unwritable_path_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        draw_emotion_timeline([], CLASSES, "", tmp_path / "file" / "a.png")
