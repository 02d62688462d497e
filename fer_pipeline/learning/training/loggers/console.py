"""Console log of the rounds of a training run.

A training round is a number of steps and the validation after them; Keras calls it an epoch.
"""

from __future__ import annotations

import logging
from typing import Any

import keras

from fer_pipeline.learning.training.history import History, ValidationRound

log = logging.getLogger(__name__)


class ConsoleLogger(keras.callbacks.Callback):
    """A callback that logs each training round (an epoch, to Keras) on one line."""

    def __init__(self, history: History) -> None:
        """Create the callback.

        Args:
            history: History of the run, from which the last round is logged.
        """
        super().__init__()
        self._history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the training round that has just ended, which is the last one of the history."""
        log_round(self._history.rounds[-1])


def log_round(validation_round: ValidationRound) -> None:
    """Log the step, losses and accuracies of a training round on one line."""
    log.info("%s", _format_round(validation_round))


def _format_round(validation_round: ValidationRound) -> str:
    """Return the step, losses and accuracies of a round as one line of text."""
    parts = [f"step {validation_round.step:,}, epoch {validation_round.epoch}"]
    if validation_round.restart:
        parts[0] = f"restart {validation_round.restart}, {parts[0]}"
    for split in ("minibatch", "validation"):
        loss = getattr(validation_round, f"{split}_loss")
        accuracy = getattr(validation_round, f"{split}_accuracy")
        if accuracy is not None:
            parts.append(f"{split} loss {loss:.4f}, accuracy {accuracy:.2%}")
    return "; ".join(parts)
