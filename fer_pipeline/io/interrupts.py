"""Ctrl-C that is not lost.

Python raises a KeyboardInterrupt wherever the program happens to be. Where that is a finalizer, or
a method that C code calls and whose errors it clears (a lookup in a dictionary, `hasattr`), nobody
hears of it, and a training of hours goes on as if nothing had been said. So it is written down too,
and whoever loops for long asks.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_came = threading.Event()


@contextlib.contextmanager
def record_interrupts() -> Iterator[None]:
    """Within it, `check` knows of a Ctrl-C.

    Changes nothing where the signal is ignored, as in the background of a shell, or handled
    already, and outside of the main thread, which hears of no signal.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    _came.clear()
    signal.signal(signal.SIGINT, _notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _came.clear()


def raise_if_interrupted() -> None:
    """Ends what goes on although it was interrupted.

    Raises:
        KeyboardInterrupt: There was a Ctrl-C, and nobody has heard of it.
    """
    if _came.is_set():
        raise KeyboardInterrupt


def _notice(*_: object) -> None:
    _came.set()
    raise KeyboardInterrupt
