"""Bar chart of the image counts of each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.tables import format_accuracy, format_percent
from fer_pipeline.plots.style import (
    BLUE,
    GREEN,
    ORANGE,
    add_title,
    format_count_axis,
    save_figure,
    style_axes,
)

_BAR_WIDTH = 0.28  # fraction of the distance between classes


def draw_class_bars(metrics: Metrics, title: str, path: Path) -> None:
    """Save a bar chart with three image counts for each class.

    The counts are the images of the class, the images predicted as the class, and the true
    positives. The accuracy (recall) of each class is written below its bars, and the overall
    accuracy below the title.

    Args:
        metrics: Metrics of the evaluation.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    classes = metrics.classes
    series = {
        "actual": (BLUE, [class_metrics.actual for class_metrics in classes]),
        "predicted": (ORANGE, [class_metrics.predicted for class_metrics in classes]),
        "true positives": (GREEN, [class_metrics.true_positives for class_metrics in classes]),
    }
    figure = Figure(figsize=(2.6 + 1.15 * len(classes), 4.8), layout="constrained")
    axes = figure.add_subplot()
    for offset, (name, (color, counts)) in enumerate(series.items(), start=-1):
        bars = axes.bar(
            np.arange(len(classes)) + offset * _BAR_WIDTH,
            counts,
            _BAR_WIDTH,
            label=name,
            color=color,
        )
        axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=7, padding=1)
    labels = [
        f"{class_metrics.name}\n{format_percent(class_metrics.scores.accuracy)}"
        for class_metrics in classes
    ]
    axes.set_xticks(range(len(classes)), labels)
    axes.set_xlabel("class, and its accuracy")
    axes.set_ylabel("images")
    axes.margins(x=0.02, y=0.1)
    style_axes(axes, grid="y")
    axes.tick_params(axis="x", length=0)
    format_count_axis(axes.yaxis)
    figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
    add_title(figure, title, format_accuracy(metrics))
    save_figure(figure, path)
