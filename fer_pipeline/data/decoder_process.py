"""Decoding of image files in a child process, because a decoder may crash or hang.

Decoders are written in C, and a damaged file can make one end its process. In a child process this
costs one file; in a Spark worker it would cost the job.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

TIME_LIMIT = 120.0
"""Seconds after which the decoding of one file is given up."""

_SECONDS_BETWEEN_ANSWERS = 0.02
"""Time after which the child sends the results that it has. A message for each small image would
take longer than to decode it."""


class Crash(Exception):  # noqa: N818 - it describes what happened to a file
    """A file made the child process end, or took too long; the text says which."""


@dataclass(frozen=True)
class _Raised:
    """An exception of the function."""

    error: Exception


class DecoderProcess(Generic[Item, Result]):
    """A child process that applies a function to files, one after the other.

    The process is started when it is first needed, and ends together with its parent.
    """

    def __init__(self, function: Callable[[Item], Result], time_limit: float = TIME_LIMIT) -> None:
        """Create a decoder, without starting its process.

        Args:
            function: Function to apply to each file.
            time_limit: Seconds after which a file is given up.
        """
        self._function = function
        self._time_limit = time_limit
        # Index of the file that the process is working on; both processes see the same memory.
        self._position = memoryview(mmap.mmap(-1, 8)).cast("q")
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process; None if it does not run."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._stop(kill=True)

    def map(self, items: Sequence[Item]) -> Iterator[Result | Crash]:
        """Yield the result for each file, or the `Crash` of one that crashed twice.

        After a crash, the file is tried once more, in a new process of its own.
        """
        done_count = 0
        suspect = len(items)
        while done_count < len(items):
            start = done_count
            is_last_try = start == suspect
            end = start + 1 if is_last_try else suspect
            for decoded in self._try_map(items[start:end], is_last_try=is_last_try):
                done_count += 1
                yield decoded
            if is_last_try:
                suspect = len(items)
            elif done_count < end:
                # The results before the crash that were not sent are computed again.
                suspect = max(done_count, start + self._position[0])

    def _try_map(
        self, items: Sequence[Item], *, is_last_try: bool = False
    ) -> Iterator[Result | Crash]:
        """Yield the results up to the first crash, but for those that were not sent yet.

        Args:
            items: The files.
            is_last_try: Whether to yield the `Crash`, too.
        """
        crash: Crash | None = None
        open_count = len(items)
        try:
            connection = self._start()
            self._position[0] = 0
            connection.send(items)
            while open_count:
                if not connection.poll(self._time_limit):
                    self._stop(kill=True)
                    crash = Crash(f"the decoder did not end within {self._time_limit:g} s")
                    break
                answers = connection.recv()
                open_count -= len(answers)
                for answer in answers:
                    if isinstance(answer, _Raised):
                        raise answer.error
                    yield answer
        except (EOFError, OSError):
            crash = Crash(f"the decoder crashed ({self._stop()})")
        finally:
            if open_count and crash is None:
                # The caller has given up. What the process still sends belongs to no file.
                self._stop(kill=True)
        if crash is not None and is_last_try:
            yield crash

    def _start(self) -> Connection[Any, Any]:
        """Start the process if it does not run, and return the connection to it."""
        if self._connection is None:
            context = multiprocessing.get_context("fork")
            self._connection, child_end = context.Pipe()
            self._process = context.Process(
                target=_serve,
                args=(child_end, self._connection, self._function, self._position),
                daemon=True,
            )
            with warnings.catch_warnings():
                # Python 3.12 warns of threads, whose locks the child does not use.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process.start()
            # If one end is open only here, the end of either process is noticed by the other.
            child_end.close()
        return self._connection

    def _stop(self, *, kill: bool = False) -> str:
        """Wait for the end of the process, and return the signal or exit status that ended it.

        Args:
            kill: Whether to kill the process.
        """
        assert self._process is not None
        assert self._connection is not None
        self._connection.close()
        if kill:
            self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self._process = self._connection = None
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(
    connection: Connection[Any, Any],
    parent_end: Connection[Any, Any],
    function: Callable[[Any], Any],
    position: memoryview,
) -> None:
    """Apply a function to all files that arrive, until the parent process ends.

    Args:
        connection: Connection to the parent.
        parent_end: The parent's end of the connection, which is closed here.
        function: Function to apply to each file.
        position: Memory of one int64, for the index of the current file.
    """
    parent_end.close()
    # The parent says what happened; a dump of the stack would be noise in the log.
    faulthandler.disable()
    # The parent decides what an interrupt ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            _answer_files(connection.recv(), connection, function, position)
    # Without the exit handlers of the parent.
    os._exit(0)


def _answer_files(
    files: Sequence[Any],
    connection: Connection[Any, Any],
    function: Callable[[Any], Any],
    position: memoryview,
) -> None:
    """Apply a function to files, and send the results in lists.

    Args:
        files: The files.
        connection: Connection to the parent.
        function: Function to apply to each file.
        position: Memory of one int64, for the index of the current file.
    """
    answers: list[Any] = []
    sent_at = time.monotonic()
    for index, file in enumerate(files):
        position[0] = index
        try:
            answers.append(function(file))
        except Exception as error:  # it is raised by the parent
            answers.append(_Raised(error))
        if time.monotonic() - sent_at > _SECONDS_BETWEEN_ANSWERS:
            connection.send(answers)
            answers = []
            sent_at = time.monotonic()
    if answers:
        connection.send(answers)
