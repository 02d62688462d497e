"""Peak memory of the Spark processes of a job."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import Self

import psutil

PROCESS_KINDS = {
    "pyspark.daemon": "python worker",
    "CoarseGrainedExecutorBackend": "executor",
}
"""Kinds of Spark processes, by a part of their command line."""

_SECONDS_BETWEEN_SAMPLES = 0.2


class MemoryMonitor(threading.Thread):
    """Thread that samples the memory of Spark processes while a `with` block runs.

    Attributes:
        peaks: Largest resident set size of a process of each kind, in bytes.
    """

    def __init__(self, process_ids: Iterable[int]) -> None:
        """Prepare the monitor without starting it.

        Args:
            process_ids: Ids of processes; their direct and indirect children are monitored.
        """
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(PROCESS_KINDS.values(), 0)
        self._parents = [psutil.Process(process_id) for process_id in process_ids]
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample the memory of all child processes until the block ends."""
        while not self._stopped.wait(_SECONDS_BETWEEN_SAMPLES):
            for parent in self._parents:
                with contextlib.suppress(psutil.Error):
                    for child in parent.children(recursive=True):
                        self._sample(child)

    def _sample(self, child: psutil.Process) -> None:
        """Update the peak of the kind of a process."""
        # The process may end while it is read.
        with contextlib.suppress(psutil.Error):
            command_line = " ".join(child.cmdline())
            for part, kind in PROCESS_KINDS.items():
                if part in command_line:
                    self.peaks[kind] = max(self.peaks[kind], child.memory_info().rss)

    def __enter__(self) -> Self:
        """Start the monitor."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the monitor."""
        self._stopped.set()
        self.join()
