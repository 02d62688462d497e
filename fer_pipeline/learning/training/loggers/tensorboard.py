"""History of a training run as TensorBoard's event files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import is_local
from fer_pipeline.learning.training.history import History, ValidationRound

_SPLIT_FOLDERS = {"minibatch": "train", "validation": "validation"}
_EVENT_FILES = "events.out.tfevents.*"

# Marks a value as a scalar. tf.summary.scalar writes the same, but needs the package tensorboard.
_SCALAR_METADATA = tf.compat.v1.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
)


class TensorBoard(keras.callbacks.Callback):
    """Writes the history as TensorBoard's event files, with the names that Keras uses.

    The folders `train` and `validation` hold `epoch_loss`, `epoch_accuracy` and so on by step;
    those of further restarts are in `restart_1` and so on. The package `tensorboard` is not needed.
    """

    def __init__(self, folder: Path, history: History) -> None:
        """Create the callback; nothing is written yet.

        Args:
            folder: Folder of the event files, `tensorboard` in the folder of the run.
            history: History of the run.
        """
        super().__init__()
        self._target, self._history, self._written_rounds = folder, history, 0
        # TensorFlow writes only local files; files for another filesystem are copied there.
        self._scratch = None if is_local(folder) else tempfile.TemporaryDirectory()
        self._folder = Path(self._scratch.name) if self._scratch else folder
        self._writers: dict[Path, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Delete older event files and write the history so far.

        A killed run may have written rounds after its last checkpoint, which a resumed run trains
        again. For this reason all rounds are written again.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._close_writers()
        self._written_rounds = 0
        for folder in (self._folder, self._target):
            for path in [*folder.rglob(_EVENT_FILES)]:
                storage.remove(path)
        self._write_new_rounds()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the round.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._write_new_rounds()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the files."""
        self._close_writers()

    def _write_new_rounds(self) -> None:
        try:
            for validation_round in self._history.rounds[self._written_rounds :]:
                for folder, tag, number in _list_scalars(validation_round):
                    with self._get_writer(self._folder / folder).as_default(validation_round.step):
                        scalar = tf.constant(number, tf.float32)
                        tf.summary.write(tag, scalar, metadata=_SCALAR_METADATA)
                self._written_rounds += 1
            for writer in self._writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            raise StorageError(f"{self._folder}: cannot be written: {error.message}") from error
        if self._scratch:
            for path in self._folder.rglob(_EVENT_FILES):
                storage.copy(path, self._target / str(path.relative_to(self._folder)))

    def _get_writer(self, folder: Path) -> Any:
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(folder))
        return self._writers[folder]

    def _close_writers(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _list_scalars(validation_round: ValidationRound) -> Iterator[tuple[str, str, float]]:
    """Yield the folder, the tag and the number of each scalar of a round."""
    restart = validation_round.restart
    prefix = f"restart_{restart}/" if restart else ""
    for name, number in asdict(validation_round).items():
        split, _, metric = name.partition("_")
        if number is None or name in ("step", "epoch", "restart", "rows"):
            continue
        if split in _SPLIT_FOLDERS:
            yield f"{prefix}{_SPLIT_FOLDERS[split]}", f"epoch_{metric}", number
        else:
            yield f"{prefix}train", f"epoch_{name}", number
