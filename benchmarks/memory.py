"""How much memory processes take while they run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Self

import psutil

KINDS = {"pyspark.daemon": "python worker", "CoarseGrainedExecutorBackend": "executor"}
"""What the command line of a process of Spark has, and what it is."""


class Watch(threading.Thread):
    """Looks at Spark's processes, among all that some processes have started.

    Attributes:
        peaks: The largest resident set of any process of each of `KINDS`, in bytes.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        """Prepares it.

        Args:
            roots: The ids of the processes that start the others.
        """
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(KINDS.values(), 0)
        self._roots = [psutil.Process(pid) for pid in roots]
        self._done = threading.Event()

    def run(self) -> None:
        """Looks five times a second."""
        while not self._done.wait(0.2):
            for root in self._roots:
                with contextlib.suppress(psutil.Error):
                    for child in root.children(recursive=True):
                        self._look_at(child)

    def _look_at(self, child: psutil.Process) -> None:
        # Workers end while they are looked at; the others still count.
        with contextlib.suppress(psutil.Error):
            line = " ".join(child.cmdline())
            for part, kind in KINDS.items():
                if part in line:
                    self.peaks[kind] = max(self.peaks[kind], child.memory_info().rss)

    def __enter__(self) -> Self:
        """Begins."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self._done.set()
        self.join()
