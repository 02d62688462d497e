"""Plots of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training.history import ValidationRound
from fer_pipeline.plots.training_curves import (
    TrainingCurves,
    draw_accuracy_curves,
    draw_loss_curves,
)


def plot_training(rounds: Sequence[ValidationRound], title: str, folder: Path) -> None:
    """Save the plots of accuracy and of loss against steps.

    Args:
        rounds: Rows of the training history of all restarts. A round is the training steps between
            two validations.
        title: Title with the name of the network.
        folder: Folder to save the plots in.

    Raises:
        StorageError: A file cannot be written.
    """
    restarts = [
        [row for row in rounds if row.restart == restart]
        for restart in sorted({row.restart for row in rounds})
    ]
    accuracies = [
        TrainingCurves(
            steps=[row.step for row in rows],
            minibatch=[row.minibatch_accuracy for row in rows],
            validation=[row.validation_accuracy for row in rows],
        )
        for rows in restarts
    ]
    losses = [
        TrainingCurves(
            steps=[row.step for row in rows],
            minibatch=[row.minibatch_loss for row in rows],
            validation=[row.validation_loss for row in rows],
        )
        for rows in restarts
    ]
    draw_accuracy_curves(accuracies, title, folder / RunFile.ACCURACY_PLOT)
    draw_loss_curves(losses, title, folder / RunFile.LOSS_PLOT)
