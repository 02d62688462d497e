"""What happens after each round of training, as Keras callbacks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.learning import bundle
from fer_pipeline.learning.history import History, Round

log = logging.getLogger(__name__)


class BestModel(keras.callbacks.Callback):
    """Keeps the model that validates best; without validation, the last one.

    Keras's ModelCheckpoint writes in place: killed meanwhile, it leaves half a model.

    Attributes:
        path: Where the model is kept.
        accuracy: Its validation accuracy; None without validation.
        round: Its round, counted from 1; the last one without validation.
    """

    def __init__(self, path: Path, *, validated: bool) -> None:
        """Takes where the model goes, and whether there is a validation split."""
        super().__init__()
        self.path, self.accuracy, self.round = path, None, 0
        self._validated = validated

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the model if it is the best so far."""
        if not self._validated:
            self.round = epoch + 1
            return
        found = (logs or {})["val_accuracy"]
        if self.accuracy is None or found > self.accuracy:
            self.accuracy, self.round = found, epoch + 1
            bundle.save(self.model, self.path)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves the last model where none could be the best."""
        if not self._validated:
            log.info("there is no validation split: the model is the last one")
            bundle.save(self.model, self.path)


class Report(keras.callbacks.Callback):
    """Tells each round in the log."""

    def __init__(self, history: History) -> None:
        """Takes the history, which has the numbers."""
        super().__init__()
        self._history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the round."""
        log.info("%s", _line(self._history.rounds[-1]))


def _line(made: Round) -> str:
    parts = [f"step {made.step:,}, epoch {made.epoch}"]
    for name in ("minibatch", "validation"):
        loss, accuracy = getattr(made, f"{name}_loss"), getattr(made, f"{name}_accuracy")
        if accuracy is not None:
            parts.append(f"{name} loss {loss:.4f}, accuracy {accuracy:.2%}")
    return "; ".join(parts)
