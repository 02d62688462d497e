"""The history of a run as TensorBoard shows it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fer_pipeline import storage
from fer_pipeline.errors import StorageError
from fer_pipeline.learning.training.history import History, Round

_PLACES = {"minibatch": "train", "validation": "validation"}
# How TensorBoard knows a scalar: tf.summary.scalar writes the same, but needs its package.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
)


class TensorBoard(keras.callbacks.Callback):
    """Writes the history as TensorBoard's event files, under the names that Keras gives them.

    `train` and `validation` hold `epoch_loss`, `epoch_accuracy` and so on against the step; those
    of further restarts stand in `restart_1` and so on. The package `tensorboard` is not needed.
    """

    def __init__(self, folder: Path, history: History) -> None:
        """Takes where and what.

        Args:
            folder: Of the event files, `tensorboard` in the run's folder.
            history: Of the run.
        """
        super().__init__()
        self._target, self._history, self._written = folder, history, 0
        # TensorFlow writes to disks alone: what is for elsewhere is copied there.
        self._scratch = None if storage.is_local(folder) else tempfile.TemporaryDirectory()
        self._folder = Path(self._scratch.name) if self._scratch else folder
        self._writers: dict[Path, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Deletes older event files and writes what the history holds already.

        A run that was killed may have told of rounds that it will make again, so all is written
        anew.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._close()
        self._written = 0
        for folder in (self._folder, self._target):
            for path in [*folder.rglob("events.out.tfevents.*")]:
                storage.remove(path)
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the round.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._write()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends the files."""
        self._close()

    def _write(self) -> None:
        try:
            for made in self._history.rounds[self._written :]:
                for place, tag, value in _scalars(made):
                    with self._writer(self._folder / place).as_default(made.step):
                        tf.summary.write(tag, tf.constant(value, tf.float32), metadata=_SCALAR)
                self._written += 1
            for writer in self._writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            raise StorageError(f"{self._folder}: cannot be written: {error.message}") from error
        if self._scratch:
            for path in self._folder.rglob("events.out.tfevents.*"):
                storage.copy(path, self._target / str(path.relative_to(self._folder)))

    def _writer(self, folder: Path) -> Any:
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(folder))
        return self._writers[folder]

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _scalars(made: Round) -> Iterator[tuple[str, str, float]]:
    """The numbers of a round, each with its folder and its tag."""
    restart = f"restart_{made.restart}/" if made.restart else ""
    for name, value in asdict(made).items():
        group, _, measure = name.partition("_")
        if value is None or name in ("step", "epoch", "restart", "rows"):
            continue
        if group in _PLACES:
            yield f"{restart}{_PLACES[group]}", f"epoch_{measure}", value
        else:
            yield f"{restart}train", f"epoch_{name}", value
