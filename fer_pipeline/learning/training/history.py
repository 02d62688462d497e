"""The history of a training run, written as it goes: an interrupted run keeps it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fer_pipeline import publication, storage
from fer_pipeline.errors import RunError


@dataclass(frozen=True)
class Round:
    """One validation, and the training before it.

    Attributes:
        step: Batches trained on so far; 0 is the network as it was drawn.
        epoch: Passes over the training split that were begun.
        minibatch_loss: The mean loss of the round's training batches, in nats, smoothed and
            weighted as it is minimised, but without a penalty that a network puts on its weights.
        minibatch_accuracy: Their accuracy, 0..1.
        validation_loss: The mean cross-entropy on validation, neither smoothed nor weighted; None
            without such a split.
        validation_accuracy: The accuracy there, 0..1.
        validation_mean_class_accuracy: The mean of the classes' accuracies there, 0..1.
        learning_rate: Of the round's last step.
        restart: Which of several runs, from 0.
        rows: Images trained on in the round, by all workers together; None before the first.
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
    """A history in a CSV file, one line for each round."""

    def __init__(self, path: Path | None, rounds: Sequence[Round] = ()) -> None:
        """Begins a new file.

        Args:
            path: The file; None for a history in memory alone.
            rounds: What is in it already: those of a run that is resumed.

        Raises:
            StorageError: It cannot be written.
        """
        self._path = path
        self.rounds: list[Round] = list(rounds)
        if path:
            header = ",".join(field.name for field in fields(Round)) + "\n"
            storage.write_text(path, header + "".join(map(_line, self.rounds)))

    def add(self, made: Round) -> None:
        """Adds a round.

        Raises:
            StorageError: The file cannot be written.
        """
        self.rounds.append(made)
        if self._path is None:
            return
        storage.append_text(self._path, _line(made))


def read(path: Path) -> list[Round]:
    """The rounds in a history's file.

    Raises:
        RunError: It was written by an older version.
        StorageError: It is not there or cannot be read.
    """
    found = []
    reader = csv.DictReader(io.StringIO(storage.read_text(path)))
    if "restart" not in (reader.fieldnames or ["restart"]):
        remedy = publication.UPGRADE_RUN.format(folder=path.parent)
        raise RunError(f"{path}: has no column restart; {remedy}")
    for row in reader:
        values: dict[str, Any] = {k: float(text) if text else None for k, text in row.items()}
        values |= {name: int(row[name]) for name in ("step", "epoch", "restart")}
        # Histories of version 0.1 have no such column.
        values["rows"] = int(row["rows"]) if row.get("rows") else None
        found.append(Round(**values))
    return found


_COLUMNS = {
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


def table(rounds: Sequence[Round]) -> str:
    """The rounds as a table for a terminal; the restarts have a column where there are several."""
    columns = dict(_COLUMNS)
    if not any(made.restart for made in rounds):
        del columns["restart"]
    rows = [list(columns)]
    for made in rounds:
        values = [(getattr(made, field), form) for field, form in columns.values()]
        rows.append(["-" if value is None else form.format(value) for value, form in values])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _line(made: Round) -> str:
    text = io.StringIO()
    values = ["" if value is None else value for value in asdict(made).values()]
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
