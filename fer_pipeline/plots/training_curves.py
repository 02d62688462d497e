"""Plots of a training run: accuracy and loss against steps.

Reference system A, which is described in `docs/networks.md`, has the same plots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_pipeline.plots.style import BLUE, ORANGE, save_figure


@dataclass(frozen=True)
class TrainingCurves:
    """Values of one metric at each validation of a training run, or of one restart of the run.

    Attributes:
        steps: Training steps before each validation; 0 is before training.
        minibatch: Mean of the metric over the minibatches since the previous validation; None if
            not measured.
        validation: Value of the metric on the validation split; None if not measured.
    """

    steps: Sequence[int]
    minibatch: Sequence[float | None]
    validation: Sequence[float | None]


def draw_accuracy_curves(restarts: Sequence[TrainingCurves], title: str, path: Path) -> None:
    """Save a plot of minibatch and validation accuracy against steps.

    Args:
        restarts: Accuracies in [0, 1] of each restart. A run has several restarts if it trains the
            network several times, from the same initial weights but in a different sample order.
        title: Title with the name of the network.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    figure, axes = _create_axes(title, "accuracy (%)")
    _add_curves(axes, restarts, scale=100)
    _add_legend(axes)
    save_figure(figure, path)


def draw_loss_curves(restarts: Sequence[TrainingCurves], title: str, path: Path) -> None:
    """Save a plot of minibatch and validation loss against steps.

    If the loss before the first step is much higher than all later losses, the vertical axis ends
    below it.

    Args:
        restarts: Losses in nats of each restart. A run has several restarts if it trains the
            network several times, from the same initial weights but in a different sample order.
        title: Title with the name of the network.
        path: Path of the PNG file.

    Raises:
        StorageError: The file cannot be written.
    """
    figure, axes = _create_axes(title, "cross-entropy (nats)")
    _add_curves(axes, restarts, scale=1)
    losses_after_start = [
        loss
        for restart in restarts
        for series in (restart.minibatch, restart.validation)
        for step, loss in zip(restart.steps, series, strict=True)
        if step and loss is not None
    ]
    # The loss before the first step can be so high that all later losses would look flat.
    if losses_after_start and axes.get_ylim()[1] > 2 * max(losses_after_start):
        axes.set_ylim(top=1.1 * max(losses_after_start))
    _add_legend(axes)
    save_figure(figure, path)


def _create_axes(title: str, y_label: str) -> tuple[Figure, Axes]:
    """Create a figure with one plot; its horizontal axis shows training steps."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel="steps", ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _add_curves(axes: Axes, restarts: Sequence[TrainingCurves], scale: float) -> None:
    """Draw the minibatch and the validation curve of each restart of the training.

    Args:
        axes: Axes to draw on.
        restarts: Values of one metric for each restart.
        scale: Factor by which the values are multiplied.
    """
    minibatch = [(restart.steps, restart.minibatch) for restart in restarts]
    validation = [(restart.steps, restart.validation) for restart in restarts]
    for label, color, all_series in (
        ("minibatch, mean since the last validation", BLUE, minibatch),
        ("validation", ORANGE, validation),
    ):
        for index, (steps, measurements) in enumerate(all_series):
            points = [
                (step, scale * measurement)
                for step, measurement in zip(steps, measurements, strict=True)
                if measurement is not None
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=3,
                    # The legend omits labels with a leading underscore, so each appears once.
                    label=f"_{label}" if index else label,
                    color=color,
                )


def _add_legend(axes: Axes) -> None:
    """Add a legend to the right of the axes, unless they contain no curves."""
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
