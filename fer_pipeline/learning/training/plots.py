"""The curves of a training run, as reference system A draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_pipeline.learning import figures
from fer_pipeline.learning.training.history import Round

_TRAIN, _VALIDATION = figures.BLUE, figures.ORANGE


def accuracy(rounds: Sequence[Round], title: str, path: Path) -> None:
    """Minibatch and validation accuracy against steps, as PNG.

    Args:
        rounds: The history.
        title: What the run is.
        path: The file.
    """
    figure, axes = _figure(title, "accuracy (%)")
    _line(axes, rounds, "minibatch_accuracy", "minibatch, mean of the round", _TRAIN, 100)
    _line(axes, rounds, "validation_accuracy", "validation", _VALIDATION, 100)
    _save(figure, axes, path)


def loss(rounds: Sequence[Round], title: str, path: Path) -> None:
    """Minibatch and validation loss against steps, as PNG.

    Args:
        rounds: The history.
        title: What the run is.
        path: The file.
    """
    figure, axes = _figure(title, "cross-entropy (nats)")
    _line(axes, rounds, "minibatch_loss", "minibatch, mean of the round", _TRAIN, 1)
    _line(axes, rounds, "validation_loss", "validation", _VALIDATION, 1)
    trained = [
        value
        for made in rounds
        if made.step
        for value in (made.minibatch_loss, made.validation_loss)
        if value is not None
    ]
    # What the network says before its first step can be so wrong that all else would lie flat.
    if trained and axes.get_ylim()[1] > 2 * max(trained):
        axes.set_ylim(top=1.1 * max(trained))
    _save(figure, axes, path)


def _figure(title: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel="steps", ylabel=unit)
    axes.grid(alpha=0.3)
    return figure, axes


def _line(
    axes: Axes, rounds: Sequence[Round], name: str, label: str, color: str, factor: float
) -> None:
    for restart in sorted({made.restart for made in rounds}):
        points = [(made.step, getattr(made, name)) for made in rounds if made.restart == restart]
        known = [(step, factor * value) for step, value in points if value is not None]
        if known:
            # A label with an underscore stays out of the legend, which names each line once.
            said = label if not restart else f"_restart {restart}"
            axes.plot(*zip(*known, strict=True), marker="o", markersize=3, label=said, color=color)


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figures.save(figure, path)
