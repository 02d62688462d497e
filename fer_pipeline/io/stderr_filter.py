"""Removal of lines from the stderr of this process, also of those that C++ libraries write."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

_STDERR = 2  # the file descriptor


class StderrFilter:
    """A filter of what this process writes to stderr while a `with` block runs.

    Libraries in C++ write to the file descriptor and not to `sys.stderr`. Therefore the file
    descriptor leads to a temporary file during the block. At its end, the text that remains is
    written to the real stderr. Nothing is filtered if stderr is closed.

    Blocks may be nested, and may run in several threads at once. The text is then written at the
    end of the last block. Lines of other threads are only delayed.
    """

    def __init__(self, remove_lines: Callable[[bytes], bytes]) -> None:
        """Create the filter.

        Args:
            remove_lines: Function that takes the captured text and returns what remains of it.
        """
        self._remove_lines = remove_lines
        self._lock = threading.Lock()
        self._block_count = 0
        self._has_failed = False
        self._stderr: int | None = None
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def filter_stderr(self) -> Iterator[None]:
        """Filter stderr during the `with` block; if the block raises, no line is removed."""
        with self._lock:
            self._block_count += 1
            if self._block_count == 1:
                self._redirect()
        try:
            yield
        except BaseException:
            self._has_failed = True
            raise
        finally:
            with self._lock:
                self._block_count -= 1
                if not self._block_count:
                    self._restore()

    def _redirect(self) -> None:
        """Let the file descriptor of stderr lead to a temporary file."""
        self._has_failed = False
        try:
            self._stderr = os.dup(_STDERR)
        except OSError:
            # stderr is closed.
            return
        _flush()
        self._file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - see _restore
        os.dup2(self._file.fileno(), _STDERR)

    def _restore(self) -> None:
        """Let the file descriptor lead to the real stderr again, and write what remains to it."""
        if self._stderr is None or self._file is None:
            return
        _flush()
        os.dup2(self._stderr, _STDERR)
        self._file.seek(0)
        captured = self._file.read()
        self._file.close()
        os.close(self._stderr)
        self._stderr = self._file = None
        remaining = captured if self._has_failed else self._remove_lines(captured)
        with contextlib.suppress(OSError), open(_STDERR, "wb", closefd=False) as stderr:
            stderr.write(remaining)


def _flush() -> None:
    """Write what Python has buffered for stderr; a program may have replaced or closed the file."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()


_LITERT_MESSAGE = re.compile(rb"INFO: Created TensorFlow Lite .*\n")
_litert_filter = StderrFilter(lambda text: _LITERT_MESSAGE.sub(b"", text))


def hide_litert_messages() -> contextlib.AbstractContextManager[None]:
    """Remove LiteRT's message about its implementation of the layers during a `with` block."""
    return _litert_filter.filter_stderr()
