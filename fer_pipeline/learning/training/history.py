"""History of a training run: the list of its rounds, also as a CSV file.

A training round is a number of steps and the validation after them; the first round is a validation
before the first step. Each round is written as soon as it ends, so that an interrupted run keeps
its history.
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
class ValidationRound:
    """The results of one training round: the steps since the previous validation, and a validation.

    Attributes:
        step: Number of training steps so far; 0 for the validation of the initial weights.
        epoch: Number of epochs that have been started.
        minibatch_loss: Mean loss of the round's training batches, in nats, with label smoothing and
            class weights, but without the penalties of a regularized network; None before the
            first step.
        minibatch_accuracy: Accuracy on the round's training batches, in [0, 1]; None before the
            first step.
        validation_loss: Mean cross-entropy on the validation split, in nats, without label
            smoothing and class weights; None if there is no validation split.
        validation_accuracy: Accuracy on the validation split, in [0, 1]; None if there is no
            validation split.
        validation_mean_class_accuracy: Mean of the per-class accuracies on the validation split,
            in [0, 1]; None if there is no validation split.
        learning_rate: Learning rate of the round's last step; None before the first step.
        restart: Index of the restart, from 0. A run consists of one or more restarts, each of which
            trains the network from the start.
        rows: Number of images trained on in the round, by all workers together; None before the
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
    """The rounds of a run, in memory and, if created with `create`, in a CSV file.

    Attributes:
        rounds: All rounds so far.
    """

    def __init__(self, rounds: Sequence[ValidationRound] = (), path: Path | None = None) -> None:
        """Create a history in memory; no file is written.

        Args:
            rounds: Rounds so far, if a run is resumed.
            path: CSV file to which `add` appends; None for a history in memory only.
        """
        self.rounds: list[ValidationRound] = list(rounds)
        self._path = path

    @classmethod
    def create(cls, path: Path, rounds: Sequence[ValidationRound] = ()) -> Self:
        """Create a history and its CSV file; an existing file is replaced.

        Args:
            path: CSV file to write.
            rounds: Rounds so far, if a run is resumed.

        Raises:
            StorageError: The file cannot be written.
        """
        header = ",".join(field.name for field in fields(ValidationRound)) + "\n"
        storage.write_text(path, header + "".join(map(_format_csv_line, rounds)))
        return cls(rounds, path)

    def add(self, validation_round: ValidationRound) -> None:
        """Add a round to the history and append it to the CSV file, if there is one.

        Raises:
            StorageError: The file cannot be written.
        """
        self.rounds.append(validation_round)
        if self._path:
            storage.append_text(self._path, _format_csv_line(validation_round))


def read_history(path: Path) -> list[ValidationRound]:
    """Read the rounds from the CSV file of a history.

    Raises:
        StorageError: The file does not exist or cannot be read.
        RunError: The file was written by an older version of the package.
        TypeError, ValueError: A line is incomplete, because a process is still writing it.
    """
    rounds = []
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
        rounds.append(ValidationRound(**columns))
    return rounds


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
"""Title of each table column, with the field of `ValidationRound` and the number format."""


def format_history(rounds: Sequence[ValidationRound]) -> str:
    """Return the rounds as a text table, with "-" for None.

    The table has a column `restart` only if there are several restarts.
    """
    columns = dict(_TABLE_COLUMNS)
    if not any(validation_round.restart for validation_round in rounds):
        del columns["restart"]
    rows = []
    for validation_round in rounds:
        cells = [
            (getattr(validation_round, field), cell_format)
            for field, cell_format in columns.values()
        ]
        rows.append(
            ["-" if cell is None else cell_format.format(cell) for cell, cell_format in cells]
        )
    return format_table(rows, list(columns), ["right"] * len(columns))


def _format_csv_line(validation_round: ValidationRound) -> str:
    """Return a round as a line of the CSV file, with an empty cell for None."""
    text = io.StringIO()
    cells = ["" if cell is None else cell for cell in asdict(validation_round).values()]
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
