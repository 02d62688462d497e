"""Console log of a run that other processes train, read from their history file.

The history file has one line for each validation. It has a temporary path while the run trains, and
its final path once the run is finished.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.learning.training.history import HistoryEntry, read_history
from fer_pipeline.learning.training.loggers.console import log_entry

_POLL_SECONDS = 1.0

_JOIN_SECONDS = 30.0
"""Longest time to wait for the thread's last poll, because a filesystem may not answer."""


@contextlib.contextmanager
def tail_history(
    temporary_path: Path, final_path: Path, known_entry_count: int = 0
) -> Iterator[None]:
    """Log the validations that other processes add to a history file during the `with` block.

    A thread reads the file once a second. The validation before the first step is not logged.

    Args:
        temporary_path: History file while the run trains. No file of an earlier run may exist
            there, unless that run is resumed.
        final_path: History file of the finished run.
        known_entry_count: Number of entries in the history of a resumed run; these are not logged.
    """
    tail = _HistoryTail(temporary_path, final_path, known_entry_count)
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
        known_entry_count: Number of entries that have been logged or need not be logged.
        end_event: Event that is set when the other processes have ended.
        success_event: Event that is set when the other processes have ended without an error.
    """

    temporary_path: Path
    final_path: Path
    known_entry_count: int
    end_event: threading.Event = field(default_factory=threading.Event)
    success_event: threading.Event = field(default_factory=threading.Event)

    def poll_until_end(self) -> None:
        """Log new validations once a second, and a last time after the other processes have ended.

        The validation before the first step is not logged.
        """
        is_last_poll = False
        while not is_last_poll:
            is_last_poll = self.end_event.wait(_POLL_SECONDS)
            entries = _read_entries(self.temporary_path)
            # Until this run has a history, the final path may hold the history of an earlier run
            # that this run replaces.
            if not entries and (self.known_entry_count or self.success_event.is_set()):
                entries = _read_entries(self.final_path)
            for entry in entries[self.known_entry_count :]:
                if entry.step:
                    log_entry(entry)
            self.known_entry_count = max(self.known_entry_count, len(entries))


def _read_entries(path: Path) -> list[HistoryEntry]:
    """Return the entries of a history file; an empty list if it is missing or still incomplete."""
    try:
        return read_history(path)
    except (StorageError, ValueError, TypeError):
        # The file does not exist, or its last line is not complete yet.
        return []
