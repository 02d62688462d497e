"""Plots of a model's confidence: the reliability diagram, and accuracy against coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_pipeline.metrics.calibration import AccuracyCoverageCurve, Bin
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import (
    BLUE,
    ORANGE,
    add_title,
    format_count_axis,
    format_percentage_axes,
    save_figure,
    style_axes,
)

# Coverages below this one do not affect the scale of the axis: the accuracy of few images varies
# too much.
_MIN_SCALED_COVERAGE = 0.02


def draw_reliability_diagram(metrics: Metrics, title: str, path: Path) -> None:
    """Save a reliability diagram: the accuracy and the number of images in each confidence bin.

    The bars of a calibrated model end at the diagonal. The difference between the accuracy and the
    mean confidence of a bin is hatched. A bin without images has no bar.

    Args:
        metrics: Metrics of the evaluation.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    bins = [
        confidence_bin for confidence_bin in metrics.calibration.bins if confidence_bin.image_count
    ]
    bar_options: dict[str, Any] = {
        "width": 1 / len(metrics.calibration.bins),
        "align": "edge",
        "edgecolor": "white",
    }
    figure = Figure(figsize=(7.2, 7.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    _add_accuracy_bars(upper, bins, bar_options)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    counts = [confidence_bin.image_count for confidence_bin in bins]
    bars = lower.bar(
        [confidence_bin.low for confidence_bin in bins], counts, color=BLUE, **bar_options
    )
    lower.bar_label(bars, [f"{count:,}" for count in counts], fontsize=7, padding=1)
    lower.margins(y=0.15)
    lower.set(xlabel="confidence: the probability of the predicted class", ylabel="images")
    style_axes(upper, lower)
    format_count_axis(lower.yaxis, max_intervals=4)
    format_percentage_axes(upper.yaxis, lower.xaxis)
    calibration = metrics.calibration
    add_title(
        figure,
        title,
        f"expected calibration error {format_percent(calibration.error)}",
        f"accuracy {format_percent(metrics.accuracy)}, mean confidence"
        f" {format_percent(calibration.confidence)}, {metrics.image_count:,} images",
    )
    save_figure(figure, path)


def _add_accuracy_bars(axes: Axes, bins: list[Bin], bar_options: dict[str, Any]) -> None:
    """Draw bars of the accuracy in each confidence bin, and the diagonal of perfect calibration.

    The difference between the accuracy and the mean confidence of a bin is hatched.

    Args:
        axes: Axes to draw on.
        bins: Confidence bins with one or more images.
        bar_options: Options of `Axes.bar` for all bars.
    """
    left = [confidence_bin.low for confidence_bin in bins]
    accuracies = np.array([confidence_bin.accuracy for confidence_bin in bins], float)
    confidences = np.array([confidence_bin.confidence for confidence_bin in bins], float)
    axes.bar(left, accuracies, color=BLUE, label="accuracy", **bar_options)
    # The hatching is visible both on the bar and above it.
    hatch_options = {
        **bar_options,
        "color": "none",
        "edgecolor": ORANGE,
        "hatch": "///",
        "linewidth": 0,
    }
    axes.bar(
        left,
        confidences - accuracies,
        bottom=accuracies,
        label="difference to the mean confidence",
        **hatch_options,
    )
    axes.plot(
        [0, 1], [0, 1], color="black", linestyle="--", linewidth=1.2, label="perfect calibration"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")


def draw_accuracy_coverage(
    metrics: Metrics, curve: AccuracyCoverageCurve, title: str, path: Path
) -> None:
    """Save a plot of accuracy and confidence threshold against coverage.

    Predictions below a confidence threshold are rejected. The coverage is the fraction of the
    images that are accepted, and the accuracy is that of the accepted images.

    Args:
        metrics: Metrics of the evaluation. The points in `metrics.coverage` are marked on the
            curves.
        curve: Accuracy and coverage at each confidence threshold.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    coverages = curve.image_counts / metrics.image_count
    upper.plot(coverages, curve.accuracy, color=BLUE, linewidth=1.8)
    _mark_coverage_points(upper, metrics)
    scaled_accuracies = curve.accuracy[coverages >= _MIN_SCALED_COVERAGE]
    bottom = max(-0.03, min([metrics.accuracy, *scaled_accuracies]) - 0.06)
    upper.set(ylim=(bottom, 1 + (1 - bottom) / 20), ylabel="accuracy of the accepted images")
    lower.plot(coverages, curve.confidence, color=ORANGE, linewidth=1.8)
    lower.plot(
        [point.coverage for point in metrics.coverage],
        [point.min_confidence for point in metrics.coverage],
        "o",
        color=ORANGE,
        markersize=5,
    )
    lower.set(
        ylim=(0, 1.03),
        xlim=(0, 1.04),
        ylabel="least confidence",
        xlabel="coverage: fraction of the images that are accepted",
    )
    style_axes(upper, lower)
    format_percentage_axes(upper.yaxis, lower.yaxis, lower.xaxis)
    lower.set_xticks(np.arange(0, 1.01, 0.1))
    add_title(figure, title, "predictions below a confidence threshold are rejected")
    save_figure(figure, path)


def _mark_coverage_points(axes: Axes, metrics: Metrics) -> None:
    """Mark the points in `metrics.coverage` on the curve, and label each with its accuracy.

    Args:
        axes: Axes with the curve of accuracy against coverage.
        metrics: Metrics of the evaluation.
    """
    coverages = [point.coverage for point in metrics.coverage]
    accuracies = [point.accuracy for point in metrics.coverage]
    axes.plot(coverages, accuracies, "o", color=BLUE, markersize=5)
    for coverage, accuracy in zip(coverages, accuracies, strict=True):
        axes.annotate(
            format_percent(accuracy),
            (coverage, accuracy),
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
