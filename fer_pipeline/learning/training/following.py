"""Following a run that other processes train, by the history that it writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_pipeline.errors import StorageError
from fer_pipeline.learning.training import history
from fer_pipeline.learning.training.callbacks import tell

_SECONDS = 1.0


@contextlib.contextmanager
def told(paths: Sequence[Path]) -> Iterator[None]:
    """Within it, each round of a run that is finished is told in the log.

    Args:
        paths: Where its history stands: at first, and in the end.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(paths, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(paths: Sequence[Path], ended: threading.Event) -> None:
    # The last look is after the end. Who goes on from a checkpoint begins with the rounds before.
    known, over = 0, False
    while not over:
        over = ended.wait(_SECONDS)
        rounds = next(filter(None, map(_rounds, paths)), [])
        for made in rounds[known:]:
            if made.step:
                tell(made)
        known = max(known, len(rounds))


def _rounds(path: Path) -> list[history.Round]:
    try:
        return history.read(path)
    except (StorageError, ValueError, TypeError):
        # It is not there, or its last line is not yet whole.
        return []
