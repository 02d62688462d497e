"""The history of a training run, written as it goes: an interrupted run keeps it."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fer_pipeline import storage
from fer_pipeline.errors import StorageError


@dataclass(frozen=True)
class Round:
    """One validation, and the training before it.

    Attributes:
        step: Batches trained on so far; 0 is the network as it was drawn.
        epoch: Passes over the training split that were begun.
        minibatch_loss: The mean cross-entropy of the round's training batches, in nats.
        minibatch_accuracy: Their accuracy, 0..1.
        validation_loss: The mean cross-entropy on validation; None without such a split.
        validation_accuracy: The accuracy there, 0..1.
    """

    step: int
    epoch: int
    minibatch_loss: float | None
    minibatch_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None


class History:
    """A history in a CSV file, one line for each round."""

    def __init__(self, path: Path) -> None:
        """Begins a new file.

        Args:
            path: The file.

        Raises:
            StorageError: It cannot be written.
        """
        self._path = path
        self.rounds: list[Round] = []
        storage.write_text(path, ",".join(field.name for field in fields(Round)) + "\n")

    def add(self, made: Round) -> None:
        """Adds a round.

        Raises:
            StorageError: The file cannot be written.
        """
        self.rounds.append(made)
        values = ["" if value is None else value for value in asdict(made).values()]
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(values)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
