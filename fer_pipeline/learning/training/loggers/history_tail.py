"""Following a run that other processes train, by the history that it writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.learning.training import history
from fer_pipeline.learning.training.callbacks import log_round

_SECONDS, _SECONDS_TO_END = 1.0, 30.0


@contextlib.contextmanager
def tail_history(first: Path, last: Path, known: int = 0) -> Iterator[None]:
    """Within it, each round of a run that is finished is told in the log.

    Args:
        first: Where its history stands as it goes, and nothing of another run.
        last: Where it stands in the end.
        known: How many rounds it had before.
    """
    ended, succeeded = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_follow, args=(first, last, known, ended, succeeded), daemon=True
    )
    thread.start()
    try:
        yield
        succeeded.set()
    finally:
        ended.set()
        # A filesystem that does not answer is not waited for.
        thread.join(_SECONDS_TO_END)


def _follow(
    first: Path, last: Path, known: int, ended: threading.Event, succeeded: threading.Event
) -> None:
    # The last look is after the end. Who goes on from a checkpoint begins with the rounds before.
    over = False
    while not over:
        over = ended.wait(_SECONDS)
        rounds = _rounds(first)
        # Till this run has one, the history of another may stand there that it replaces.
        if not rounds and (known or succeeded.is_set()):
            rounds = _rounds(last)
        for made in rounds[known:]:
            if made.step:
                log_round(made)
        known = max(known, len(rounds))


def _rounds(path: Path) -> list[history.ValidationRound]:
    try:
        return history.read_history(path)
    except (StorageError, ValueError, TypeError):
        # It is not there, or its last line is not yet whole.
        return []
