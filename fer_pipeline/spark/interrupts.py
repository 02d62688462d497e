"""Handling of Ctrl-C (SIGINT) while a Spark session is open."""

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
    """Handle SIGINT (Ctrl-C) until the context ends, then restore the previous handler.

    Before a session is attached to the handler, SIGINT is only recorded, and `attach` then raises
    KeyboardInterrupt. Afterwards, SIGINT cancels the jobs of the session and raises
    KeyboardInterrupt. Outside the main thread, the only one that receives signals, SIGINT is not
    handled.

    Yields:
        The handler, to which the caller must attach the session.

    Raises:
        KeyboardInterrupt: SIGINT arrived; this error replaces any other error in the context.
    """
    handler = InterruptHandler()
    is_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, handler.record_interrupt) if is_main_thread else None
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
    """Cancels the jobs of a Spark session on SIGINT and raises KeyboardInterrupt.

    This works even during a call to the JVM. Spark's own handler makes a second call to the JVM on
    the same connection, which makes the interrupted call fail.

    Attributes:
        is_interrupted: Whether SIGINT has arrived.
    """

    def __init__(self) -> None:
        """Create a handler without a session; the method `attach` sets the session."""
        self.is_interrupted = False
        self._session: SparkSession | None = None

    def record_interrupt(self, *_: object) -> None:
        """Record a SIGINT that arrives while the JVM starts.

        KeyboardInterrupt is only raised after the start, by `attach`, because a JVM whose start is
        interrupted never exits.
        """
        self.is_interrupted = True

    def attach(self, session: SparkSession) -> None:
        """Attach a session, so that a SIGINT cancels its jobs and raises KeyboardInterrupt.

        Outside the main thread, the signal handler is not installed.

        Args:
            session: Session that has just been opened.

        Raises:
            KeyboardInterrupt: SIGINT arrived before the call; the session has been stopped.
        """
        self._session = session
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle_sigint)
        if self.is_interrupted:
            self.stop_session()
            raise KeyboardInterrupt

    def stop_session(self) -> None:
        """Stop the attached session, if any; after an interrupt, give up waiting after 10 s."""
        if self._session is None:
            return
        if self.is_interrupted:
            self._call_in_thread(self._session.stop)
        else:
            self._session.stop()

    def _handle_sigint(self, *_: object) -> None:
        """Cancel all jobs and raise KeyboardInterrupt; do nothing if SIGINT arrives again.

        The logging of Python and of the JVM is turned off.
        """
        if not self.is_interrupted:
            self.is_interrupted = True
            # py4j logs each interrupted call to the JVM, and now all calls are interrupted.
            logging.disable(logging.CRITICAL)
            self._call_in_thread(self._cancel_jobs)
            raise KeyboardInterrupt

    def _cancel_jobs(self) -> None:
        """Cancel all jobs of the attached session, if any, and turn off the log of the JVM."""
        if self._session is not None:
            # The JVM would log an error for each cancelled task.
            silence_jvm()
            self._session.sparkContext.cancelAllJobs()

    @staticmethod
    def _call_in_thread(function: Callable[[], None]) -> None:
        """Call a function in a new thread, and wait at most 10 s for it to return.

        The new thread has its own Py4J connection to the JVM, so the function does not disturb the
        call that the signal interrupted in the calling thread.
        """
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(_STOP_TIMEOUT)


def silence_jvm() -> None:
    """Turn off the JVM's log messages until the next session starts, if a JVM is running."""
    with contextlib.suppress(Py4JError, OSError):
        if SparkContext._jvm is not None:
            log4j: Any = SparkContext._jvm.org.apache.logging.log4j
            log4j.core.config.Configurator.setAllLevels("", log4j.Level.OFF)
