import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from fer_pipeline.errors import StorageError
from fer_pipeline.metrics import significance
from fer_pipeline.metrics.classification import compute_metrics
from fer_pipeline.metrics.comparison import BenchmarkSettings, Comparison, Cost, ModelResult
from fer_pipeline.plots import comparison as comparison_plots
from fer_pipeline.plots.style import save_figure

LABELS = np.arange(200) % 3


def make_result(name: str, correct_count: int, cost: Cost) -> ModelResult:
    probabilities = np.full((200, 3), 0.1)
    predicted = np.where(np.arange(200) < correct_count, LABELS, (LABELS + 1) % 3)
    probabilities[np.arange(200), predicted] = 0.8
    metrics = compute_metrics(LABELS, probabilities, ("a", "b", "c"))
    return ModelResult(name, f"/{name}", "", "", "network", 48, "float32", cost, metrics, None)


def compare_models(*costs: Cost, flip: bool = False) -> Comparison:
    """Compare models with these costs; each recognises ten images more than the previous one."""
    models = tuple(make_result(f"run_{i}", 100 + 10 * i, cost) for i, cost in enumerate(costs))
    is_correct = np.arange(200) < 100 + 10 * np.arange(len(costs))[:, None]
    return Comparison(
        models, significance.compare_classifiers(is_correct), BenchmarkSettings(64, 2, flip), None
    )


@pytest.fixture
def draw_figure(monkeypatch, tmp_path):
    """Return a function that draws a comparison and returns the figure."""
    figures: list[Figure] = []

    def save_and_keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save_figure(figure, path)

    monkeypatch.setattr(comparison_plots, "save_figure", save_and_keep)

    def draw_comparison(comparison: Comparison) -> Figure:
        comparison_plots.draw_accuracy_cost(comparison, "about $x", tmp_path / "accuracy_cost.png")
        assert (tmp_path / "accuracy_cost.png").read_bytes().startswith(b"\x89PNG")
        return figures[-1]

    return draw_comparison


def read_points(axes: Axes) -> list[tuple[float, float, float, float]]:
    """Return cost, accuracy and the ends of the interval of each point in a panel."""
    positions = []
    for bar in axes.containers:
        assert isinstance(bar, ErrorbarContainer)
        marker, _, (lines,) = bar.lines
        ((_, low), (_, high)) = lines.get_segments()[0]
        x, y = np.asarray(marker.get_xydata())[0]
        positions.append((x, y, low, high))
    return positions


def test_each_model_is_drawn_at_its_cost_with_its_interval(draw_figure):
    comparison = compare_models(
        Cost(50_000, 1_600_000, (), 40_000.0), Cost(3_000_000, 290_000_000, (), 600.0)
    )
    multiply_adds, parameters, speed = draw_figure(comparison).axes
    for axes, costs in (
        (multiply_adds, (1_600_000, 290_000_000)),
        (parameters, (50_000, 3_000_000)),
        (speed, (40_000.0, 600.0)),
    ):
        expected = []
        for cost, model in zip(costs, comparison.models, strict=True):
            ends = model.metrics.intervals.accuracy
            expected.append((cost, 100 * model.metrics.accuracy, 100 * ends.low, 100 * ends.high))
        assert np.array(read_points(axes)) == pytest.approx(np.array(expected))
        # All points and intervals are within the axes.
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left < min(costs) < max(costs) < right
        assert bottom < min(low for *_, low, _ in expected)
        assert top > max(high for *_, high in expected)


def test_the_legend_names_every_model_and_its_unknown_costs(draw_figure):
    figure = draw_figure(compare_models(Cost(10, None, (), 10.0), Cost(20, 200, (), 20.0)))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "run_0 (network): 50.0 %, multiply-adds unknown",
        "run_1 (network): 55.0 %",
    ]
    assert [len(read_points(axes)) for axes in figure.axes] == [1, 2, 2]


def test_models_without_known_multiply_adds_are_left_out_of_their_panel(draw_figure):
    figure = draw_figure(compare_models(Cost(10, None, (), 10.0), Cost(20, 0, (), 20.0)))
    assert [len(read_points(axes)) for axes in figure.axes] == [0, 2, 2]


def test_models_of_the_same_cost_do_not_hide_each_other(draw_figure):
    cost = Cost(1000, 5000, (), 100.0)
    figure = draw_figure(compare_models(cost, dataclasses.replace(cost, parameters=1005), cost))
    figure.draw_without_rendering()
    for axes in figure.axes:
        markers = [bar.lines[0] for bar in axes.containers]
        horizontal_positions = [
            line.get_transform().transform(line.get_xydata())[0, 0] for line in markers
        ]
        assert min(np.diff(sorted(horizontal_positions))) > 8
        # A logarithmic axis with a single cost has a width and at least two ticks.
        left, right = axes.get_xlim()
        assert right / left == pytest.approx(10)
        assert len([tick for tick in axes.get_xticks() if left < tick < right]) >= 2


def test_eight_models_look_different(draw_figure):
    figure = draw_figure(compare_models(*(Cost(10**i, 10**i, (), 10.0**i) for i in range(1, 9))))
    markers = [bar.lines[0] for bar in figure.axes[0].containers]
    assert len({line.get_color() for line in markers}) == 8
    assert len({line.get_marker() for line in markers}) == 8
    # Few ticks, whose labels do not overlap.
    assert all(len(axes.get_xticks()) < 12 for axes in figure.axes)


@pytest.mark.parametrize("flip", [True, False])
def test_the_title_states_how_the_costs_were_measured(draw_figure, flip):
    figure = draw_figure(compare_models(Cost(1, 1, (), 1.0), Cost(2, 2, (), 2.0), flip=flip))
    settings_text = "200 images, batches of 64, 2 cores"
    settings_text += ", accuracy with flip TTA, costs of one forward pass" if flip else ""
    assert figure.get_suptitle() == f"about $x\n{settings_text}"


def test_the_title_states_that_points_were_moved(draw_figure):
    figure = draw_figure(compare_models(Cost(100, 1, (), 1.0), Cost(105, 2, (), 2.0)))
    note = "points whose costs differ by 10 % or less are side by side"
    assert " ".join(figure.get_suptitle().split()).endswith(f"2 cores, {note}")


def test_an_unwritable_path_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    comparison = compare_models(Cost(1, 1, (), 1.0))
    with pytest.raises(StorageError, match=r"file/a\.png: cannot be written"):
        comparison_plots.draw_accuracy_cost(comparison, "", tmp_path / "file" / "a.png")
