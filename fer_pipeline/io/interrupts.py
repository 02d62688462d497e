"""Ctrl-C that cannot get lost.

Python raises a KeyboardInterrupt at whatever line the program is. If that line is in a finalizer,
or in a method that C code calls and whose errors it clears (a lookup in a dictionary, `hasattr`),
the exception is swallowed, and a training run of hours continues. So the signal handler also
records the interrupt, and long loops check that record.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_interrupted = threading.Event()


@contextlib.contextmanager
def record_interrupts() -> Iterator[None]:
    """Record each Ctrl-C within the block, for `raise_if_interrupted`.

    Nothing is changed if the signal is ignored, as in the background of a shell, if it is handled
    already, or outside the main thread, which alone receives signals.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    _interrupted.clear()
    signal.signal(signal.SIGINT, _record_and_raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted.clear()


def raise_if_interrupted() -> None:
    """Raise again if an interrupt was recorded.

    Raises:
        KeyboardInterrupt: There was a Ctrl-C, and its exception was swallowed.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _record_and_raise(*_: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt
