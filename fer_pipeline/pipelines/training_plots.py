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
    """Draw accuracy and loss against steps.

    Args:
        rounds: Validation rounds of all restarts.
        title: Title that names the network.
        folder: Folder of the run.

    Raises:
        StorageError: A file cannot be written.
    """
    restarts = [
        [validation_round for validation_round in rounds if validation_round.restart == trial]
        for index in sorted({validation_round.restart for validation_round in rounds})
    ]
    accuracies = [
        TrainingCurves(
            steps=[validation_round.step for validation_round in restart],
            minibatch=[validation_round.minibatch_accuracy for validation_round in restart],
            validation=[validation_round.validation_accuracy for validation_round in restart],
        )
        for restart in restarts
    ]
    losses = [
        TrainingCurves(
            steps=[validation_round.step for validation_round in restart],
            minibatch=[validation_round.minibatch_loss for validation_round in restart],
            validation=[validation_round.validation_loss for validation_round in restart],
        )
        for restart in restarts
    ]
    draw_accuracy_curves(accuracies, title, folder / RunFile.ACCURACY_PLOT)
    draw_loss_curves(losses, title, folder / RunFile.LOSS_PLOT)
