"""Console log of a training run: one line for each validation."""

from __future__ import annotations

import logging
from typing import Any

import keras

from fer_pipeline.learning.training.history import History, HistoryEntry

log = logging.getLogger(__name__)


class ConsoleLogger(keras.callbacks.Callback):
    """A callback that logs the losses and accuracies on one line at each validation."""

    def __init__(self, history: History) -> None:
        """Create the callback.

        Args:
            history: History of the run; its last entry is logged.
        """
        super().__init__()
        self._history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the last validation; the training loop calls this method after each one."""
        log_entry(self._history.entries[-1])


def log_entry(entry: HistoryEntry) -> None:
    """Log a history entry on one line: the step, losses and accuracies of a validation."""
    log.info("%s", _format_entry(entry))


def _format_entry(entry: HistoryEntry) -> str:
    """Return the step, losses and accuracies of one validation as one line of text."""
    parts = [f"step {entry.step:,}, epoch {entry.epoch}"]
    if entry.restart:
        parts[0] = f"restart {entry.restart}, {parts[0]}"
    for split in ("minibatch", "validation"):
        loss = getattr(entry, f"{split}_loss")
        accuracy = getattr(entry, f"{split}_accuracy")
        if accuracy is not None:
            parts.append(f"{split} loss {loss:.4f}, accuracy {accuracy:.2%}")
    return "; ".join(parts)
