"""Console log of the rounds of a run that other processes train, read from their history file.

A training round is a number of steps and the validation after them. The history file has a
temporary path while the run trains, and its final path once the run is finished.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.learning.training.history import ValidationRound, read_history
from fer_pipeline.learning.training.loggers.console import log_round

_POLL_SECONDS = 1.0

_JOIN_SECONDS = 30.0
"""Longest time to wait for the thread's last poll, because a filesystem may not answer."""


@contextlib.contextmanager
def tail_history(
    temporary_path: Path, final_path: Path, known_round_count: int = 0
) -> Iterator[None]:
    """Log each training round that other processes add to the history file while the block runs.

    Args:
        temporary_path: History file while the run trains. No file of an earlier run may exist
            there, unless that run is resumed.
        final_path: History file of the finished run.
        known_round_count: Number of rounds in the history of a resumed run; these are not logged.
    """
    tail = _HistoryTail(temporary_path, final_path, known_round_count)
    thread = threading.Thread(target=tail.poll_until_end, daemon=True)
    thread.start()
    try:
        yield
        tail.success_event.set()
    finally:
        tail.end_event.set()
        thread.join(_JOIN_SECONDS)


@dataclass
class _HistoryTail:
    """The paths and the progress of reading a history file that other processes write.

    Attributes:
        temporary_path: History file while the run trains.
        final_path: History file of the finished run.
        known_round_count: Number of rounds that have been logged or need not be logged.
        end_event: Event that is set when the other processes have ended.
        success_event: Event that is set when they have ended without an error.
    """

    temporary_path: Path
    final_path: Path
    known_round_count: int
    end_event: threading.Event = field(default_factory=threading.Event)
    success_event: threading.Event = field(default_factory=threading.Event)

    def poll_until_end(self) -> None:
        """Log new rounds once a second, and a last time after the other processes have ended.

        The validation before the first step is not logged.
        """
        is_last_poll = False
        while not is_last_poll:
            is_last_poll = self.end_event.wait(_POLL_SECONDS)
            rounds = _read_rounds(self.temporary_path)
            # Until this run has a history, the final path may hold the history of an earlier run
            # that this run replaces.
            if not rounds and (self.known_round_count or self.success_event.is_set()):
                rounds = _read_rounds(self.final_path)
            for validation_round in rounds[self.known_round_count :]:
                if validation_round.step:
                    log_round(validation_round)
            self.known_round_count = max(self.known_round_count, len(rounds))


def _read_rounds(path: Path) -> list[ValidationRound]:
    """Return the rounds of a history file; an empty list if it is missing or incomplete."""
    try:
        return read_history(path)
    except (StorageError, ValueError, TypeError):
        # The file does not exist, or its last line is not complete yet.
        return []
