"""The peak memory of processes while they run."""

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
"""A part of the command line of each kind of Spark process, and the name of the kind."""

_SECONDS_BETWEEN_SAMPLES = 0.2


class MemoryMonitor(threading.Thread):
    """A thread that samples the memory of the Spark processes among all child processes.

    Attributes:
        peaks: Largest resident set of any process of each of `PROCESS_KINDS`, in bytes.
    """

    def __init__(self, process_ids: Iterable[int]) -> None:
        """Prepare the monitor.

        Args:
            process_ids: Ids of the processes whose children are monitored.
        """
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(PROCESS_KINDS.values(), 0)
        self._parents = [psutil.Process(process_id) for process_id in process_ids]
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample the memory until the monitor is stopped."""
        while not self._stopped.wait(_SECONDS_BETWEEN_SAMPLES):
            for parent in self._parents:
                with contextlib.suppress(psutil.Error):
                    for child in parent.children(recursive=True):
                        self._sample(child)

    def _sample(self, child: psutil.Process) -> None:
        # A worker may end in the middle of this; the other processes still count.
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
