import dataclasses

import numpy as np
import pytest

from fer_pipeline.errors import StorageError
from fer_pipeline.metrics import significance
from fer_pipeline.metrics.classification import compute_metrics
from fer_pipeline.metrics.comparison import BenchmarkSettings, Comparison, Cost, ModelResult
from fer_pipeline.plots import comparison as comparison_plots

LABELS = np.arange(200) % 3


def entry(name, right, cost):
    probabilities = np.full((200, 3), 0.1)
    guesses = np.where(np.arange(200) < right, LABELS, (LABELS + 1) % 3)
    probabilities[np.arange(200), guesses] = 0.8
    result = compute_metrics(LABELS, probabilities, ("a", "b", "c"))
    return ModelResult(name, f"/{name}", "", "", "network", 48, "float32", cost, result, None)


def comparison(*costs, flip=False):
    """Models of these costs, each right in ten images more than the one before."""
    entries = tuple(entry(f"run_{i}", 100 + 10 * i, cost) for i, cost in enumerate(costs))
    right = np.arange(200) < 100 + 10 * np.arange(len(costs))[:, None]
    return Comparison(
        entries, significance.compare_classifiers(right), BenchmarkSettings(64, 2, flip), None
    )


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a comparison; returns the figure."""
    saved = []
    save = comparison_plots.save_figure
    monkeypatch.setattr(
        comparison_plots,
        "save_figure",
        lambda figure, path: (saved.append(figure), save(figure, path)),
    )

    def draw(found):
        comparison_plots.draw_accuracy_cost(found, "about $x", tmp_path / "accuracy_cost.png")
        assert (tmp_path / "accuracy_cost.png").read_bytes().startswith(b"\x89PNG")
        return saved[-1]

    return draw


def points(axes):
    """Where the points of a panel stand: cost and accuracy, and the ends of its interval."""
    found = []
    for bar in axes.containers:
        marker, _, (lines,) = bar.lines
        ((_, low), (_, high)) = lines.get_segments()[0]
        found.append((marker.get_xdata()[0], marker.get_ydata()[0], low, high))
    return found


def test_every_model_stands_at_its_costs_with_its_interval(drawn):
    found = comparison(
        Cost(50_000, 1_600_000, (), 40_000.0), Cost(3_000_000, 290_000_000, (), 600.0)
    )
    multiply_adds, parameters, speed = drawn(found).axes
    for axes, costs in (
        (multiply_adds, (1_600_000, 290_000_000)),
        (parameters, (50_000, 3_000_000)),
        (speed, (40_000.0, 600.0)),
    ):
        expected = []
        for cost, one in zip(costs, found.models, strict=True):
            ends = one.metrics.intervals.accuracy
            expected.append((cost, 100 * one.metrics.accuracy, 100 * ends.low, 100 * ends.high))
        assert np.array(points(axes)) == pytest.approx(np.array(expected))
        # Nothing is cut off.
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left < min(costs) < max(costs) < right
        assert bottom < min(low for *_, low, _ in expected)
        assert top > max(high for *_, high in expected)


def test_the_legend_names_every_model_and_what_is_not_known_of_it(drawn):
    figure = drawn(comparison(Cost(10, None, (), 10.0), Cost(20, 200, (), 20.0)))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "run_0 (network): 50.0 %, multiply-adds not known",
        "run_1 (network): 55.0 %",
    ]
    assert [len(points(axes)) for axes in figure.axes] == [1, 2, 2]


def test_none_of_the_multiply_adds_is_known(drawn):
    figure = drawn(comparison(Cost(10, None, (), 10.0), Cost(20, 0, (), 20.0)))
    assert [len(points(axes)) for axes in figure.axes] == [0, 2, 2]


def test_models_of_the_same_cost_do_not_hide_each_other(drawn):
    same = Cost(1000, 5000, (), 100.0)
    figure = drawn(comparison(same, dataclasses.replace(same, parameters=1005), same))
    figure.draw_without_rendering()
    for axes in figure.axes:
        markers = [bar.lines[0] for bar in axes.containers]
        across = [line.get_transform().transform(line.get_xydata())[0, 0] for line in markers]
        assert min(np.diff(sorted(across))) > 8
        # A log axis of one value has a width, and numbers that can be read.
        left, right = axes.get_xlim()
        assert right / left == pytest.approx(10)
        assert len([tick for tick in axes.get_xticks() if left < tick < right]) >= 2


def test_eight_models_look_different(drawn):
    figure = drawn(comparison(*(Cost(10**i, 10**i, (), 10.0**i) for i in range(1, 9))))
    markers = [bar.lines[0] for bar in figure.axes[0].containers]
    assert len({line.get_color() for line in markers}) == 8
    assert len({line.get_marker() for line in markers}) == 8
    # Few numbers below the axes: they do not run into each other.
    assert all(len(axes.get_xticks()) < 12 for axes in figure.axes)


@pytest.mark.parametrize("flip", [True, False])
def test_the_title_says_how_it_was_measured(drawn, flip):
    figure = drawn(comparison(Cost(1, 1, (), 1.0), Cost(2, 2, (), 2.0), flip=flip))
    said = "200 images, batches of 64, 2 cores"
    said += ", accuracy with flips averaged, costs of one pass" if flip else ""
    assert figure.get_suptitle() == f"about $x\n{said}"


def test_the_title_says_that_points_were_moved(drawn):
    figure = drawn(comparison(Cost(100, 1, (), 1.0), Cost(105, 2, (), 2.0)))
    beside = "points whose costs differ by a tenth or less stand side by side"
    assert " ".join(figure.get_suptitle().split()).endswith(f"2 cores, {beside}")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    found = comparison(Cost(1, 1, (), 1.0))
    with pytest.raises(StorageError, match=r"file/a\.png: cannot be written"):
        comparison_plots.draw_accuracy_cost(found, "", tmp_path / "file" / "a.png")
