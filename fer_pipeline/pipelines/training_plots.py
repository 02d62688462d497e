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
        rounds: Training rounds of all restarts. A training round is the steps since the previous
            validation, followed by a validation.
        title: Title with the name of the network.
        folder: Folder to save the plots in.

    Raises:
        StorageError: A file cannot be written.
    """
    restart_numbers = sorted({training_round.restart for training_round in rounds})
    restarts = [
        [training_round for training_round in rounds if training_round.restart == number]
        for number in restart_numbers
    ]
    accuracies = [
        TrainingCurves(
            steps=[training_round.step for training_round in restart],
            minibatch=[training_round.minibatch_accuracy for training_round in restart],
            validation=[training_round.validation_accuracy for training_round in restart],
        )
        for restart in restarts
    ]
    losses = [
        TrainingCurves(
            steps=[training_round.step for training_round in restart],
            minibatch=[training_round.minibatch_loss for training_round in restart],
            validation=[training_round.validation_loss for training_round in restart],
        )
        for restart in restarts
    ]
    draw_accuracy_curves(accuracies, title, folder / RunFile.ACCURACY_PLOT)
    draw_loss_curves(losses, title, folder / RunFile.LOSS_PLOT)
