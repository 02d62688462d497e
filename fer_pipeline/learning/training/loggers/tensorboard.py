"""TensorBoard log of a training run: the history as TensorBoard event files."""

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
from fer_pipeline.learning.training.history import History, HistoryEntry

_SPLIT_FOLDERS = {"minibatch": "train", "validation": "validation"}
_EVENT_FILE_GLOB = "events.out.tfevents.*"

# This metadata marks a value as a scalar. tf.summary.scalar writes the same metadata, but needs the
# package tensorboard.
_SCALAR_METADATA = tf.compat.v1.SummaryMetadata(
    plugin_data={"plugin_name": "scalars"}, data_class="DATA_CLASS_SCALAR"
)


class TensorBoard(keras.callbacks.Callback):
    """A callback that writes the history as TensorBoard event files, with Keras's metric names.

    The folders `train` and `validation` contain `epoch_loss`, `epoch_accuracy` and so on by step.
    The folders of further restarts are in `restart_1` and so on. The package `tensorboard` is not
    needed.
    """

    def __init__(self, folder: Path, history: History) -> None:
        """Create the callback; no file is written yet.

        Args:
            folder: Folder of the event files, `tensorboard` in the output folder of the run.
            history: History of the run.
        """
        super().__init__()
        self._final_folder, self._history, self._written_entry_count = folder, history, 0
        # TensorFlow writes only local files. For a remote folder, they are written to a temporary
        # folder and copied.
        self._temporary_folder = None if is_local(folder) else tempfile.TemporaryDirectory()
        self._local_folder = Path(self._temporary_folder.name) if self._temporary_folder else folder
        self._writers: dict[Path, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Delete existing event files and rewrite the whole history.

        A run that was killed after its last checkpoint may have logged validations that the resumed
        run repeats. Rewriting the history avoids duplicates.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._close_writers()
        self._written_entry_count = 0
        for folder in (self._local_folder, self._final_folder):
            for path in [*folder.rglob(_EVENT_FILE_GLOB)]:
                storage.remove(path)
        self._write_new_entries()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the metrics of all validations since the last call.

        The training loop calls this method after each validation, except after the one before the
        first step.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._write_new_entries()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the event files."""
        self._close_writers()

    def _write_new_entries(self) -> None:
        """Write the history entries that have not been written yet.

        If the output folder is remote, also copy the event files to it.

        Raises:
            StorageError: The folder cannot be written.
        """
        try:
            for entry in self._history.entries[self._written_entry_count :]:
                for folder, tag, number in _iterate_scalars(entry):
                    with self._get_writer(self._local_folder / folder).as_default(entry.step):
                        scalar = tf.constant(number, tf.float32)
                        tf.summary.write(tag, scalar, metadata=_SCALAR_METADATA)
                self._written_entry_count += 1
            for writer in self._writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            raise StorageError(
                f"{self._local_folder}: cannot be written: {error.message}"
            ) from error
        if self._temporary_folder:
            for path in self._local_folder.rglob(_EVENT_FILE_GLOB):
                storage.copy(path, self._final_folder / str(path.relative_to(self._local_folder)))

    def _get_writer(self, folder: Path) -> Any:
        """Return the event file writer of a folder, which is created at first use."""
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(folder))
        return self._writers[folder]

    def _close_writers(self) -> None:
        """Close all event files; metrics that are written later go to new files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _iterate_scalars(entry: HistoryEntry) -> Iterator[tuple[str, str, float]]:
    """Yield the relative folder, the tag and the value of each metric of one validation."""
    restart = entry.restart
    prefix = f"restart_{restart}/" if restart else ""
    for name, number in asdict(entry).items():
        split, _, metric = name.partition("_")
        if number is None or name in ("step", "epoch", "restart", "rows"):
            continue
        if split in _SPLIT_FOLDERS:
            yield f"{prefix}{_SPLIT_FOLDERS[split]}", f"epoch_{metric}", number
        else:
            yield f"{prefix}train", f"epoch_{name}", number
