"""History of a training run: one entry for each validation, also as a CSV file.

The first entry is the validation before the first step. Each entry is written at once, so that an
interrupted run keeps its history.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from fer_pipeline.errors import RunError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN
from fer_pipeline.text import format_table


@dataclass(frozen=True)
class HistoryEntry:
    """One entry of the training history: a validation and the steps since the previous validation.

    Attributes:
        step: Number of training steps so far; 0 for the validation of the initial weights.
        epoch: Number of epochs that have been started.
        minibatch_loss: Mean loss on the training batches of these steps, in nats, with label
            smoothing and class weights, but without the penalties of a regularized network; None
            before the first step.
        minibatch_accuracy: Accuracy on the training batches of these steps, in [0, 1]; None before
            the first step.
        validation_loss: Mean cross-entropy on the validation split, in nats, without label
            smoothing and class weights; None if there is no validation split.
        validation_accuracy: Accuracy on the validation split, in [0, 1]; None if there is no
            validation split.
        validation_mean_class_accuracy: Mean of the per-class accuracies on the validation split,
            in [0, 1]; None if there is no validation split.
        learning_rate: Learning rate of the last step; None before the first step.
        restart: Index of the restart, from 0. A run consists of one or more restarts, each of which
            trains the network from the start.
        rows: Number of images trained on in these steps, by all workers together; None before the
            first step.
    """

    step: int
    epoch: int
    minibatch_loss: float | None
    minibatch_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    validation_mean_class_accuracy: float | None = None
    learning_rate: float | None = None
    restart: int = 0
    rows: int | None = None


class History:
    """The history of a run, in memory and, if created with `create`, in a CSV file.

    Attributes:
        entries: One entry for each validation so far.
    """

    def __init__(self, entries: Sequence[HistoryEntry] = (), path: Path | None = None) -> None:
        """Create a history in memory; no file is written.

        Args:
            entries: Entries so far, if a run is resumed.
            path: CSV file to which `add` appends; None for a history in memory only.
        """
        self.entries: list[HistoryEntry] = list(entries)
        self._path = path

    @classmethod
    def create(cls, path: Path, entries: Sequence[HistoryEntry] = ()) -> Self:
        """Create a history and its CSV file; an existing file is replaced.

        Args:
            path: CSV file to write.
            entries: Entries so far, if a run is resumed; they are written to the file.

        Raises:
            StorageError: The file cannot be written.
        """
        header = ",".join(field.name for field in fields(HistoryEntry)) + "\n"
        storage.write_text(path, header + "".join(map(_format_csv_line, entries)))
        return cls(entries, path)

    def add(self, entry: HistoryEntry) -> None:
        """Add an entry to the history and append it to the CSV file, if there is one.

        Raises:
            StorageError: The file cannot be written.
        """
        self.entries.append(entry)
        if self._path:
            storage.append_text(self._path, _format_csv_line(entry))


def read_history(path: Path) -> list[HistoryEntry]:
    """Read the entries from the CSV file of a history.

    Raises:
        StorageError: The file does not exist or cannot be read.
        RunError: The file was written by an older version of the package.
        TypeError, ValueError: A line is incomplete, because a process is still writing it.
    """
    entries = []
    reader = csv.DictReader(io.StringIO(storage.read_text(path)))
    if "restart" not in (reader.fieldnames or ["restart"]):
        remedy = UPGRADE_RUN.format(folder=path.parent)
        raise RunError(f"{path}: has no column restart; {remedy}")
    for row in reader:
        columns: dict[str, Any] = {
            name: float(cell) if cell else None for name, cell in row.items()
        }
        columns |= {name: int(row[name]) for name in ("step", "epoch", "restart")}
        # Histories written by version 0.1 do not have this column.
        columns["rows"] = int(row["rows"]) if row.get("rows") else None
        entries.append(HistoryEntry(**columns))
    return entries


_TABLE_COLUMNS = {
    "restart": ("restart", "{:d}"),
    "step": ("step", "{:,}"),
    "epoch": ("epoch", "{:d}"),
    "loss": ("minibatch_loss", "{:.4f}"),
    "accuracy": ("minibatch_accuracy", "{:.2%}"),
    "val loss": ("validation_loss", "{:.4f}"),
    "val accuracy": ("validation_accuracy", "{:.2%}"),
    "mean class": ("validation_mean_class_accuracy", "{:.2%}"),
    "rate": ("learning_rate", "{:.2g}"),
}
"""Title of each table column, with the field of `HistoryEntry` and the number format."""


def format_history(entries: Sequence[HistoryEntry]) -> str:
    """Return a history as a text table, with "-" for None.

    The table has a column `restart` only if there are several restarts.
    """
    columns = dict(_TABLE_COLUMNS)
    if not any(entry.restart for entry in entries):
        del columns["restart"]
    rows = []
    for entry in entries:
        cells = [(getattr(entry, field), cell_format) for field, cell_format in columns.values()]
        rows.append(
            ["-" if cell is None else cell_format.format(cell) for cell, cell_format in cells]
        )
    return format_table(rows, list(columns), ["right"] * len(columns))


def _format_csv_line(entry: HistoryEntry) -> str:
    """Return an entry as a line of the CSV file, with an empty cell for None."""
    text = io.StringIO()
    cells = ["" if cell is None else cell for cell in asdict(entry).values()]
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
