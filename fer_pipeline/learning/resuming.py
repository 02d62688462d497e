"""Keeping a training run, so that a process that was killed is taken up by another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.learning import checkpoint
from fer_pipeline.learning.callbacks import BestWeights, Kept
from fer_pipeline.learning.checkpoint import Checkpoint
from fer_pipeline.learning.history import History, Round
from fer_pipeline.learning.trainer import Trainer

# What Keras's callbacks remember from one epoch to the next. They offer no way to ask for it.
_MEMORY: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


@dataclass
class RunKeeper:
    """Writes checkpoints of a run, and gives what was read from one back to its parts.

    Attributes:
        path: Of the checkpoint.
        trainer: What is trained.
        history: Of the run.
        best: Keeps the best weights of all trials.
        identity: What a run is continued with, see `stages.train`.
        watching: Keras's callbacks of this trial.
        trial: Which one it is, from 0.
    """

    path: Path
    trainer: Trainer
    history: History
    best: BestWeights
    identity: dict[str, Any]
    watching: Sequence[keras.callbacks.Callback] = ()
    trial: int = 0
    _found: dict[str, Any] | None = None

    def restore(self, found: Checkpoint) -> None:
        """Goes on from a checkpoint; the history has its rounds already.

        Raises:
            RunError: It is that of another network or optimizer.
        """
        notes = found.notes
        self.trainer.restore(found.arrays, notes["step"])
        self.trial = notes["trial"]
        if notes["best"]:
            kept = dict(notes["best"], made=Round(**notes["best"]["made"]))
            self.best.kept = Kept(**kept, weights=found.arrays["best"])
        self._found = {"callbacks": notes["callbacks"], "stopped": notes["stopped"]}

    def begin(self) -> None:
        """Gives the callbacks their memory back: they lose it at the beginning of training."""
        if self._found is None:
            return
        for callback, memory in zip(self.watching, self._found["callbacks"], strict=True):
            for name, value in memory.items():
                setattr(callback, name, value)
        self.trainer.model.stop_training = self._found["stopped"]
        self._found = None

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
            StorageError: The disk is full, ...
        """
        kept = self.best.kept
        notes = {
            **self.identity,
            "step": self.trainer.step,
            "trial": self.trial,
            "stopped": self.trainer.model.stop_training,
            "rounds": [asdict(made) for made in self.history.rounds],
            "callbacks": [
                {name: getattr(callback, name) for name in _MEMORY[type(callback)]}
                for callback in self.watching
            ],
            "best": kept
            and {
                "value": kept.value,
                "made": asdict(kept.made),
                "confusion": kept.confusion,
            },
        }
        arrays = {**self.trainer.state(), "best": kept.weights if kept else []}
        checkpoint.write(self.path, Checkpoint(arrays, notes))
