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
        step: After how many steps it stood so.
    """

    def __init__(
        self, exported: keras.Model, path: Path, history: History, *, validated: bool
    ) -> None:
        """Takes what is kept.

        Args:
            exported: The model to save.
            path: Where.
            history: Of the run.
            validated: Whether there is a validation split.
        """
        super().__init__()
        self.path, self.step = path, 0
        self.accuracy: float | None = None
        self._exported, self._history, self._validated = exported, history, validated

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves the model if it is the best so far."""
        if not self._validated:
            return
        found = (logs or {})["val_accuracy"]
        if self.accuracy is None or found > self.accuracy:
            self.accuracy = found
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Saves the last model where none could be the best."""
        if not self._validated:
            log.info("there is no validation split: the model is the last one")
            self._save()

    def _save(self) -> None:
        self.step = self._history.rounds[-1].step
        bundle.save(self._exported, self.path)


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
