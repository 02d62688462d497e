"""Plot of the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.tables import format_accuracy, format_percent
from fer_pipeline.plots.style import add_title, save_figure

# Fraction of a row above which dark text cannot be read on the blue of the colour map.
_WHITE_TEXT_ABOVE = 0.55


def draw_confusion_matrix(metrics: Metrics, title: str, path: Path) -> None:
    """Save a plot of the confusion matrix. Rows are true classes, columns are predicted classes.

    Each cell shows the number of images, and this number as a fraction of the images of the true
    class. The fraction also sets the colour of the cell. The fractions on the diagonal are the
    per-class accuracies. The row of a class without images contains only dashes.

    Args:
        metrics: Metrics of the evaluation.
        title: Title with the names of the model and the dataset.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    names = [class_metrics.name for class_metrics in metrics.classes]
    counts = np.array(metrics.confusion)
    totals = counts.sum(axis=1)
    fractions = counts / np.maximum(totals, 1)[:, None]
    axes_size = 3 + 0.8 * len(names)
    figure = Figure(figsize=(axes_size + 0.9, axes_size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        cell = _Cell(int(count), float(fractions[row, column]), is_empty_row=not totals[row])
        _add_cell_text(axes, row, column, cell)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    labels = [f"{name}\n({total:,})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(names)), labels)
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (images)")
    figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the true class's images")
    add_title(figure, title, format_accuracy(metrics))
    save_figure(figure, path)


@dataclass(frozen=True)
class _Cell:
    """Content of one cell of the confusion matrix.

    Attributes:
        image_count: Number of images.
        fraction: `image_count` as a fraction of the images of the true class.
        is_empty_row: Whether the true class has no images.
    """

    image_count: int
    fraction: float
    is_empty_row: bool

    @property
    def text(self) -> str:
        """Number of images and percentage of the row; "0" for no images, "-" in an empty row."""
        if self.is_empty_row:
            return "-"
        return f"{self.image_count:,}\n{format_percent(self.fraction)}" if self.image_count else "0"

    @property
    def text_color(self) -> str:
        """Colour of the text: white on dark cells, grey for 0 images, otherwise black."""
        if self.fraction > _WHITE_TEXT_ABOVE:
            return "white"
        # Most cells are 0 and must not distract from the others.
        return "black" if self.image_count else "#999999"


def _add_cell_text(axes: Axes, row: int, column: int, cell: _Cell) -> None:
    """Draw the text of the cell at (row, column); the text on the diagonal is bold."""
    axes.text(
        column,
        row,
        cell.text,
        ha="center",
        va="center",
        fontsize=9,
        color=cell.text_color,
        fontweight="bold" if row == column else "normal",
    )
