"""Writing of checkpoints while a run trains, and restoring of a run from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras

from fer_pipeline.learning.training import checkpoint as checkpoint_file
from fer_pipeline.learning.training.callbacks import BestSnapshot, BestWeights
from fer_pipeline.learning.training.checkpoint import BestEntry, Checkpoint, RunSetup, RunState
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.trainer import Trainer

# Attributes of Keras's callbacks that change from epoch to epoch. Keras has no method to save or
# restore them.
_CALLBACK_ATTRIBUTES: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


@dataclass
class RunCheckpointer:
    """A writer of the checkpoints of a run, which also restores the run from a checkpoint.

    Attributes:
        path: Checkpoint file; None for a worker that writes no file. Only worker 0, the chief,
            writes it.
        trainer: Trainer of the network.
        history: History of the run.
        best: Callback that keeps the best weights of all restarts.
        setup: Configuration and inputs of the run, which must not change when it is resumed.
        monitor_callbacks: Keras callbacks of the current restart that monitor a metric.
        restart: Index of the current restart, from 0. A run trains its network one or more times
            from the start; each time is a restart.
    """

    path: Path | None
    trainer: Trainer
    history: History
    best: BestWeights
    setup: RunSetup
    monitor_callbacks: Sequence[keras.callbacks.Callback] = ()
    restart: int = 0
    _restored_state: RunState | None = field(default=None, init=False)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the trainer, the best weights and the attribute `restart` from a checkpoint.

        The callbacks are restored later, by `restore_callbacks`. The history is not changed,
        because the caller created it with the entries of the checkpoint.

        Raises:
            RunError: The checkpoint belongs to a different network or optimizer.
        """
        state = checkpoint.state
        self.trainer.restore(checkpoint.arrays, state.step, is_chief=self.path is not None)
        self.restart = state.restart
        if state.best:
            self.best.snapshot = BestSnapshot(
                metric=state.best.metric,
                entry=state.best.entry,
                confusion=state.best.confusion,
                weights=checkpoint.arrays["best"],
            )
        self._restored_state = state

    def restore_callbacks(self) -> None:
        """Restore the callbacks that monitor a metric, and whether they stopped the training.

        Call `restore` first. Call this method after `on_train_begin`, in which these callbacks
        reset themselves. It does nothing if no checkpoint was restored, or if the callbacks have
        been restored already.
        """
        if self._restored_state is None:
            return
        states = self._restored_state.callbacks
        for callback, attributes in zip(self.monitor_callbacks, states, strict=True):
            for name, attribute in attributes.items():
                setattr(callback, name, attribute)
        self.trainer.model.stop_training = self._restored_state.stopped
        self._restored_state = None

    def save(self) -> None:
        """Write a checkpoint in place of the previous one.

        Only the chief (worker 0) writes the file. But all workers must call this method at the same
        time, because the training metrics are summed over all workers.

        Raises:
            StorageError: The folder cannot be written, or the disk is full.
        """
        arrays, snapshot = self.trainer.get_state(), self.best.snapshot
        if self.path is None:
            return
        state = RunState(
            **dict(self.setup),
            step=self.trainer.step,
            restart=self.restart,
            stopped=self.trainer.model.stop_training,
            entries=self.history.entries,
            callbacks=[
                {name: getattr(callback, name) for name in _CALLBACK_ATTRIBUTES[type(callback)]}
                for callback in self.monitor_callbacks
            ],
            best=snapshot
            and BestEntry(
                metric=snapshot.metric, entry=snapshot.entry, confusion=snapshot.confusion
            ),
        )
        best_weights = snapshot.weights if snapshot else []
        checkpoint_file.write_checkpoint(
            self.path, Checkpoint({**arrays, "best": best_weights}, state)
        )
