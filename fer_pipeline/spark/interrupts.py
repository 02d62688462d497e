"""Ctrl-C while a Spark session is open."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import SparkSession

_STOP_TIMEOUT = 10  # seconds


@contextlib.contextmanager
def handle_interrupts() -> Iterator[InterruptHandler]:
    """Handle SIGINT within the block, and restore the previous handler at its end.

    Raises:
        KeyboardInterrupt: Instead of any other error if the signal arrived within the block.
    """
    handler = InterruptHandler()
    is_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, handler.record) if is_main_thread else None
    try:
        yield handler
    except BaseException:
        if handler.is_interrupted:
            # Any other error is a consequence of the interrupt.
            raise KeyboardInterrupt from None
        raise
    finally:
        if is_main_thread:
            signal.signal(signal.SIGINT, previous)


class InterruptHandler:
    """Ends a session on Ctrl-C with a KeyboardInterrupt, even while the JVM is busy.

    Spark's own handler calls the JVM from within another call to it, and the outer call fails.

    Attributes:
        is_interrupted: Whether the signal has arrived.
    """

    def __init__(self) -> None:
        """Create a handler without a session, see `attach`."""
        self.is_interrupted = False
        self._session: SparkSession | None = None

    def record(self, *_: object) -> None:
        """Record the signal while the JVM starts: a JVM abandoned at that stage never exits."""
        self.is_interrupted = True

    def attach(self, session: SparkSession) -> None:
        """Interrupt this session on the signal, or at once if it has already arrived."""
        self._session = session
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)
        if self.is_interrupted:
            self.stop_session()
            raise KeyboardInterrupt

    def stop_session(self) -> None:
        """Stop the session; does nothing before `attach`."""
        if self._session is None:
            return
        if self.is_interrupted:
            self._call_in_thread(self._session.stop)
        else:
            self._session.stop()

    def _interrupt(self, *_: object) -> None:
        if not self.is_interrupted:
            self.is_interrupted = True
            # py4j logs each call that breaks off, and now all of them do.
            logging.disable(logging.CRITICAL)
            self._call_in_thread(self._cancel_jobs)
            raise KeyboardInterrupt

    def _cancel_jobs(self) -> None:
        if self._session is not None:
            silence_jvm()
            self._session.sparkContext.cancelAllJobs()

    @staticmethod
    def _call_in_thread(function: Callable[[], None]) -> None:
        """Call the JVM from another thread, which has its own connection to it."""
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(_STOP_TIMEOUT)


def silence_jvm() -> None:
    """Turn off the JVM's log until the next session; does nothing without a JVM."""
    with contextlib.suppress(Py4JError, OSError):
        if SparkContext._jvm is not None:
            log4j: Any = SparkContext._jvm.org.apache.logging.log4j
            log4j.core.config.Configurator.setAllLevels("", log4j.Level.OFF)
