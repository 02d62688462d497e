"""Rounds of a run that other processes train, logged from the history file that they write."""

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
"""Limit of the wait for the thread's last poll: a filesystem may not answer."""


@contextlib.contextmanager
def tail_history(
    unfinished_path: Path, finished_path: Path, known_rounds: int = 0
) -> Iterator[None]:
    """Log each round that other processes finish within the context.

    Args:
        unfinished_path: History file of the run while it trains, which no other run has written.
        finished_path: History file of the finished run.
        known_rounds: Number of rounds that the history had before, which are not logged.
    """
    tail = _HistoryTail(unfinished_path, finished_path, known_rounds)
    thread = threading.Thread(target=tail.poll_until_end, daemon=True)
    thread.start()
    try:
        yield
        tail.has_succeeded.set()
    finally:
        tail.has_ended.set()
        thread.join(_JOIN_SECONDS)


@dataclass
class _HistoryTail:
    unfinished_path: Path
    finished_path: Path
    known_rounds: int
    has_ended: threading.Event = field(default_factory=threading.Event)
    has_succeeded: threading.Event = field(default_factory=threading.Event)

    def poll_until_end(self) -> None:
        """Poll the files, once more after the end, and log new rounds."""
        is_last_poll = False
        while not is_last_poll:
            is_last_poll = self.has_ended.wait(_POLL_SECONDS)
            rounds = _read_rounds(self.unfinished_path)
            # Before this run has a history, the finished file may be that of a run it replaces.
            if not rounds and (self.known_rounds or self.has_succeeded.is_set()):
                rounds = _read_rounds(self.finished_path)
            for validation_round in rounds[self.known_rounds :]:
                if validation_round.step:
                    log_round(validation_round)
            self.known_rounds = max(self.known_rounds, len(rounds))


def _read_rounds(path: Path) -> list[ValidationRound]:
    try:
        return read_history(path)
    except (StorageError, ValueError, TypeError):
        # The file does not exist, or its last line is not complete yet.
        return []
