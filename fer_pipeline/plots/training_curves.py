"""Plots of a training run: accuracy and loss against steps, as reference system A draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_pipeline.plots.style import BLUE, ORANGE, save_figure


@dataclass(frozen=True)
class TrainingCurves:
    """One metric against steps, of one run or one of its restarts.

    Attributes:
        steps: Step of each validation; 0 is before training.
        minibatch: Mean over the minibatches since the previous validation; None if not measured.
        validation: Value on the validation split; None if not measured.
    """

    steps: Sequence[int]
    minibatch: Sequence[float | None]
    validation: Sequence[float | None]


def draw_accuracy_curves(runs: Sequence[TrainingCurves], title: str, path: Path) -> None:
    """Draw minibatch and validation accuracy against steps.

    Args:
        runs: Accuracies in 0..1, of each restart of the training.
        title: Title that names the network.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    figure, axes = _create_axes(title, "accuracy (%)")
    _add_curves(axes, runs, scale=100)
    _add_legend(axes)
    save_figure(figure, path)


def draw_loss_curves(runs: Sequence[TrainingCurves], title: str, path: Path) -> None:
    """Draw minibatch and validation loss against steps.

    Args:
        runs: Losses in nats, of each restart of the training.
        title: Title that names the network.
        path: Path of the PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    figure, axes = _create_axes(title, "cross-entropy (nats)")
    _add_curves(axes, runs, scale=1)
    losses_after_start = [
        loss
        for run in runs
        for series in (run.minibatch, run.validation)
        for step, loss in zip(run.steps, series, strict=True)
        if step and loss is not None
    ]
    # The loss before the first step can be so high that all other losses would look flat.
    if losses_after_start and axes.get_ylim()[1] > 2 * max(losses_after_start):
        axes.set_ylim(top=1.1 * max(losses_after_start))
    _add_legend(axes)
    save_figure(figure, path)


def _create_axes(title: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel="steps", ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _add_curves(axes: Axes, runs: Sequence[TrainingCurves], scale: float) -> None:
    minibatch = [(run.steps, run.minibatch) for run in runs]
    validation = [(run.steps, run.validation) for run in runs]
    for label, color, all_series in (
        ("minibatch, mean of the round", BLUE, minibatch),
        ("validation", ORANGE, validation),
    ):
        for index, (steps, values) in enumerate(all_series):
            points = [
                (step, scale * value)
                for step, value in zip(steps, values, strict=True)
                if value is not None
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=3,
                    # The legend omits labels with a leading underscore: it names each line once.
                    label=f"_{label}" if index else label,
                    color=color,
                )


def _add_legend(axes: Axes) -> None:
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
