"""A record of each Ctrl-C (SIGINT), so that no interrupt is lost.

Python raises KeyboardInterrupt at the line that is running. The exception is swallowed if that line
is in a finalizer, or in a method that is called by C code which ignores errors (a dictionary
lookup, `hasattr`). A training run of several hours would then continue. Therefore the signal
handler also records the interrupt, and long loops check the record.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_interrupted = threading.Event()


@contextlib.contextmanager
def record_interrupts() -> Iterator[None]:
    """Record Ctrl-C (SIGINT) during a `with` block, for later calls of `raise_if_interrupted`.

    Ctrl-C still raises KeyboardInterrupt. The record is needed because Python discards this
    exception in finalizers and in C code that ignores errors.

    Nothing is recorded if SIGINT is ignored (as in a background job of a shell), if another handler
    is installed, or outside the main thread, because only the main thread receives signals.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    _interrupted.clear()
    signal.signal(signal.SIGINT, _handle_sigint)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted.clear()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed in the `with` block of `record_interrupts`.

    Long loops call this function, because Python may have discarded the original exception.

    Raises:
        KeyboardInterrupt: The user pressed Ctrl-C.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _handle_sigint(*_: object) -> None:
    """Record the interrupt, then raise KeyboardInterrupt like Python's default handler."""
    _interrupted.set()
    raise KeyboardInterrupt
