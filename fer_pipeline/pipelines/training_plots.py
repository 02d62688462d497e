"""Plots of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training.history import HistoryEntry
from fer_pipeline.plots.training_curves import (
    TrainingCurves,
    draw_accuracy_curves,
    draw_loss_curves,
)


def plot_training(entries: Sequence[HistoryEntry], title: str, folder: Path) -> None:
    """Save the plots of accuracy and of loss against steps.

    Args:
        entries: Training history of all restarts, one entry for each validation.
        title: Title with the name of the network.
        folder: Folder to save the plots in.

    Raises:
        StorageError: A file cannot be written.
    """
    restart_numbers = sorted({entry.restart for entry in entries})
    restarts = [
        [entry for entry in entries if entry.restart == number] for number in restart_numbers
    ]
    accuracies = [
        TrainingCurves(
            steps=[entry.step for entry in restart],
            minibatch=[entry.minibatch_accuracy for entry in restart],
            validation=[entry.validation_accuracy for entry in restart],
        )
        for restart in restarts
    ]
    losses = [
        TrainingCurves(
            steps=[entry.step for entry in restart],
            minibatch=[entry.minibatch_loss for entry in restart],
            validation=[entry.validation_loss for entry in restart],
        )
        for restart in restarts
    ]
    draw_accuracy_curves(accuracies, title, folder / RunFile.ACCURACY_PLOT)
    draw_loss_curves(losses, title, folder / RunFile.LOSS_PLOT)
