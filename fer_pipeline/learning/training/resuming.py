"""Keeping a training run, so that a process that was killed is taken up by another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.learning.training import checkpoint, distillation
from fer_pipeline.learning.training.callbacks import BestWeights, Kept
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.history import History, Round
from fer_pipeline.learning.training.trainer import Trainer
from fer_pipeline.manifest import Manifest

# What Keras's callbacks remember from one epoch to the next. They offer no way to ask for it.
_MEMORY: dict[type[keras.callbacks.Callback], tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", "stopped_epoch"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
}


@dataclass
class RunKeeper:
    """Writes checkpoints of a run, and gives what was read from one back to its parts.

    Attributes:
        path: Of the checkpoint; None for a worker that is not the chief, and writes none.
        trainer: What is trained.
        history: Of the run.
        best: Keeps the best weights of all restarts.
        begun: What the run is made of: `config`, `dataset`, `precision`, `teachers` and `workers`.
        watching: Keras's callbacks of this restart.
        restart: Which one it is, from 0.
    """

    path: Path | None
    trainer: Trainer
    history: History
    best: BestWeights
    begun: dict[str, Any]
    watching: Sequence[keras.callbacks.Callback] = ()
    restart: int = 0
    _found: dict[str, Any] | None = None

    def restore(self, found: Checkpoint) -> None:
        """Goes on from a checkpoint; the history has its rounds already.

        Raises:
            RunError: It is that of another network or optimizer.
        """
        notes = found.notes
        self.trainer.restore(found.arrays, notes["step"], chief=self.path is not None)
        self.restart = notes["restart"]
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
        """Writes a checkpoint; every worker has to ask.

        Raises:
            StorageError: The disk is full, ...
        """
        state, kept = self.trainer.state(), self.best.kept
        if self.path is None:
            return
        notes = {
            **self.begun,
            "step": self.trainer.step,
            "restart": self.restart,
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
        arrays = {**state, "best": kept.weights if kept else []}
        checkpoint.write(self.path, Checkpoint(arrays, notes))


# What may change when a run is resumed: it bears on neither the weights nor the history.
_FREE = ("tracking", "inference", "training.checkpoint_every_steps", "model.temperature")


def require_same(
    folder: Path, found: Checkpoint, config: Config, data: Path, made: Manifest
) -> None:
    """Makes sure that a run goes on with what it was begun with.

    Args:
        folder: The run's folder.
        found: Its checkpoint.
        config: The configuration now.
        data: The dataset's folder.
        made: Its manifest now.

    Raises:
        ConfigError: The configuration is another.
        RunError: A teacher is another, or is no finished run any more.
        DatasetError: The dataset is another, or is laid out otherwise: rows would come in another
            order, and some of the epoch under way never.
    """
    require_same_config(folder, found.notes["config"], config)
    begun, current = found.notes["dataset"], identity(made)
    if any(size is None for *_, size in begun["files"]):
        # A migrated checkpoint: preprocess has written the dataset again, with other file sizes.
        current["files"] = [[split, rows, None] for split, rows, _ in current["files"]]
    other = [name for name, value in current.items() if begun.get(name) != value]
    if other:
        raise DatasetError(
            f"{data}: is not the dataset that the run in {folder} was begun on (it differs in"
            f" {', '.join(other)}); begin anew with --overwrite"
        )
    chosen = config.training.distillation
    taught = zip(chosen.teachers, found.notes.get("teachers", []), strict=True)
    replaced = [name for name, sha256 in taught if sha256 != distillation.checksum(name)]
    if replaced:
        raise RunError(
            f"{folder}: the run was begun with another model as its teacher, in"
            f" {', '.join(replaced)}; begin anew with --overwrite"
        )


def require_same_workers(folder: Path, found: Checkpoint, count: int, steps: int) -> None:
    """Refuses to end an epoch with another number of workers than has begun it.

    Each number of workers has an order of rows of its own: some of the epoch's would come twice,
    and others never.

    Args:
        folder: The run's folder.
        found: Its checkpoint.
        count: How many workers there are now.
        steps: Of an epoch.

    Raises:
        RunError: It is in the middle of an epoch, and of another number of workers.
    """
    epochs, rest = divmod(found.notes["step"], steps)
    begun = found.notes.get("workers", 1)
    if rest and begun != count:
        raise RunError(
            f"{folder}: its checkpoint is in the middle of epoch {epochs + 1}, begun with another"
            f" number of workers; resume it with --workers {begun}"
        )


def require_same_config(folder: Path, begun: Mapping[str, Any], config: Config) -> None:
    """Refuses a configuration that would change a run that is resumed.

    Raises:
        ConfigError: It differs in a key that bears on the weights.
    """
    others = [key for key in differing(begun, config.to_dict()) if not key.startswith(_FREE)]
    if others:
        raise ConfigError(
            f"{folder}: the run was begun with another {', '.join(others)}; resume it without"
            " --config and --set, or begin anew with --overwrite"
        )


def identity(made: Manifest) -> dict[str, Any]:
    """What of a dataset bears on a run: its content, its meaning and its layout."""
    plain = made.model_dump(mode="json", include={"checksum", "classes", "image", "labels"})
    # A file's name is another each time that the same dataset is written.
    files = sorted(made.files, key=lambda file: file.path)
    return {**plain, "files": [[str(file.split), file.rows, file.bytes] for file in files]}


def differing(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys under which two configurations differ, in alphabetical order."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        if one != other:
            yield prefix
        return
    for key in sorted({*one, *other}):
        yield from differing(one.get(key), other.get(key), f"{prefix}.{key}" if prefix else key)
