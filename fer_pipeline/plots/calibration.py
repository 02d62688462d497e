"""The pictures of how far a model's confidence can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fer_pipeline.metrics.calibration import AccuracyCoverageCurve
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import BLUE, ORANGE, add_title, save_figure


def draw_reliability_diagram(metrics: Metrics, about: str, path: Path) -> None:
    """Draws the reliability diagram: the accuracy in each bin of confidence, over their images.

    On the diagonal a model is as sure as it is right. The distance of a bar to its mean confidence
    is hatched; a bin without images is empty.

    Args:
        metrics: The evaluation.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    bins = [one for one in metrics.calibration.bins if one.images]
    left = [one.low for one in bins]
    look: dict[str, Any] = {
        "width": 1 / len(metrics.calibration.bins),
        "align": "edge",
        "edgecolor": "white",
    }
    figure = Figure(figsize=(7.2, 7.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    accuracies = np.array([one.accuracy for one in bins], float)
    sure = np.array([one.confidence for one in bins], float)
    upper.bar(left, accuracies, color=BLUE, label="accuracy", **look)
    # Hatched, it can be seen on the bar as well as above it.
    hatched = {**look, "color": "none", "edgecolor": ORANGE, "hatch": "///", "linewidth": 0}
    name = "distance to the mean confidence"
    upper.bar(left, sure - accuracies, bottom=accuracies, label=name, **hatched)
    upper.plot(
        [0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="as sure as right"
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    counts = [one.images for one in bins]
    bars = lower.bar(left, counts, color=BLUE, **look)
    lower.bar_label(bars, [f"{count:,}" for count in counts], fontsize=7, padding=1)
    lower.margins(y=0.15)
    lower.set(xlabel="confidence: the probability of the predicted class", ylabel="images")
    _plain(upper, lower)
    lower.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=4))
    lower.yaxis.set_major_formatter("{x:,.0f}")
    for axis in (upper.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    add_title(figure, about, *_numbers(metrics))
    save_figure(figure, path)


def draw_accuracy_coverage(
    metrics: Metrics, curve: AccuracyCoverageCurve, about: str, path: Path
) -> None:
    """Draws accuracy against coverage, and the least confidence that leaves so many images.

    Args:
        metrics: The evaluation, whose coverages are marked.
        curve: Its curve.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    parts = curve.images / metrics.image_count
    upper.plot(parts, curve.accuracy, color=BLUE, linewidth=1.8)
    marked = [(one.coverage, one.accuracy) for one in metrics.coverage]
    upper.plot(*zip(*marked, strict=True), "o", color=BLUE, markersize=5)
    for part, accuracy in marked:
        upper.annotate(
            format_percent(accuracy),
            (part, accuracy),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    # Of few images an accuracy jumps: their part of the curve must not set its scale.
    least = min([metrics.accuracy, *curve.accuracy[curve.images >= 0.02 * metrics.image_count]])
    bottom = max(-0.03, least - 0.06)
    upper.set(ylim=(bottom, 1 + (1 - bottom) / 20), ylabel="accuracy of the images that are left")
    lower.plot(parts, curve.confidence, color=ORANGE, linewidth=1.8)
    shown = [(one.coverage, one.min_confidence) for one in metrics.coverage]
    lower.plot(*zip(*shown, strict=True), "o", color=ORANGE, markersize=5)
    lower.set(
        ylim=(0, 1.03),
        xlim=(0, 1.04),
        ylabel="least confidence",
        xlabel="coverage: the part of the images that is left",
    )
    _plain(upper, lower)
    for axis in (upper.yaxis, lower.yaxis, lower.xaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    lower.set_xticks(np.arange(0, 1.01, 0.1))
    add_title(figure, about, "where only confident predictions count")
    save_figure(figure, path)


def _plain(*several: Axes) -> None:
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)


def _numbers(metrics: Metrics) -> tuple[str, str]:
    calibration = metrics.calibration
    return (
        f"expected calibration error {format_percent(calibration.error)}",
        f"accuracy {format_percent(metrics.accuracy)}, mean confidence"
        f" {format_percent(calibration.confidence)}, {metrics.image_count:,} images",
    )
