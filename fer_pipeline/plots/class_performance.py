"""The pictures of an evaluation's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.tables import format_percent
from fer_pipeline.plots.style import BLUE, GREEN, ORANGE, add_title, save_figure

_SERIES = {"actual": BLUE, "predicted": ORANGE, "true positives": GREEN}
# From this part of a row on, dark text on the colour map's blue cannot be read.
_DARK = 0.55


def draw_confusion_matrix(metrics: Metrics, about: str, path: Path) -> None:
    """Draws the confusion matrix: rows are true classes, columns predicted ones.

    Each cell holds its number of images and its part of the row, which is also its colour; the
    diagonal shows the accuracy per class. A class without images has an empty row.

    Args:
        metrics: The evaluation.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    names = [one.name for one in metrics.classes]
    counts = np.array(metrics.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    parts = counts / np.maximum(totals, 1)
    side = 3 + 0.8 * len(names)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.add_subplot()
    colours = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        part = parts[row, column]
        # What there is most of, nothing, must not drown the rest.
        shade = "white" if part > _DARK else "black" if count else "#999999"
        axes.text(
            column,
            row,
            f"{count:,}\n{format_percent(part)}" if count else "0" if totals[row, 0] else "-",
            ha="center",
            va="center",
            fontsize=9,
            color=shade,
            fontweight="bold" if row == column else "normal",
        )
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        range(len(names)), [f"{n}\n({t:,})" for n, t in zip(names, totals[:, 0], strict=True)]
    )
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (images)")
    figure.colorbar(colours, ax=axes, shrink=0.8, label="part of the true class's images")
    add_title(figure, about, _numbers(metrics))
    save_figure(figure, path)


def draw_class_bars(metrics: Metrics, about: str, path: Path) -> None:
    """Draws bars of actual, predicted and true positives for each class.

    Args:
        metrics: The evaluation.
        about: What was evaluated on what.
        path: The PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    classes = metrics.classes
    series = {
        "actual": [one.actual for one in classes],
        "predicted": [one.predicted for one in classes],
        "true positives": [one.true_positives for one in classes],
    }
    figure = Figure(figsize=(2.6 + 1.15 * len(classes), 4.8), layout="constrained")
    axes = figure.add_subplot()
    width = 0.28
    for offset, (name, values) in enumerate(series.items(), start=-1):
        bars = axes.bar(
            np.arange(len(classes)) + offset * width,
            values,
            width,
            label=name,
            color=_SERIES[name],
        )
        axes.bar_label(bars, [f"{value:,}" for value in values], fontsize=7, padding=1)
    axes.set_xticks(
        range(len(classes)),
        [f"{one.name}\n{format_percent(one.scores.accuracy)}" for one in classes],
    )
    axes.set_xlabel("class, and its accuracy")
    axes.set_ylabel("images")
    axes.margins(x=0.02, y=0.1)
    _plain(axes)
    figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
    add_title(figure, about, _numbers(metrics))
    save_figure(figure, path)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _numbers(metrics: Metrics) -> str:
    return (
        f"accuracy {format_percent(metrics.accuracy)} of {metrics.image_count:,} images,"
        f" mean per class {format_percent(metrics.mean_class_accuracy)}"
    )
