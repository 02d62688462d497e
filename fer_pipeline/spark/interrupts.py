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
    """Handle SIGINT while the context is active; restore the previous handler afterwards.

    Outside the main thread, which is the only one that receives signals, SIGINT is not handled.

    Yields:
        The handler, to which the session must be attached.

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
        """Create a handler that has no session yet; see `attach`."""
        self.is_interrupted = False
        self._session: SparkSession | None = None

    def record_interrupt(self, *_: object) -> None:
        """Record a SIGINT while the JVM starts, without raising an error.

        `attach` raises KeyboardInterrupt later: a JVM that is abandoned during its start never
        exits.
        """
        self.is_interrupted = True

    def attach(self, session: SparkSession) -> None:
        """Cancel the jobs of this session and raise KeyboardInterrupt when SIGINT arrives.

        Args:
            session: The session.

        Raises:
            KeyboardInterrupt: SIGINT has already arrived; the session is stopped.
        """
        self._session = session
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle_sigint)
        if self.is_interrupted:
            self.stop_session()
            raise KeyboardInterrupt

    def stop_session(self) -> None:
        """Stop the session, if one is attached; after an interrupt, wait at most 10 s for it."""
        if self._session is None:
            return
        if self.is_interrupted:
            self._call_in_thread(self._session.stop)
        else:
            self._session.stop()

    def _handle_sigint(self, *_: object) -> None:
        """Cancel all jobs and raise KeyboardInterrupt; ignore further signals."""
        if not self.is_interrupted:
            self.is_interrupted = True
            # py4j logs each interrupted call to the JVM, and now all calls are interrupted.
            logging.disable(logging.CRITICAL)
            self._call_in_thread(self._cancel_jobs)
            raise KeyboardInterrupt

    def _cancel_jobs(self) -> None:
        """Turn off the log of the JVM and cancel all jobs of the session, if one is attached."""
        if self._session is not None:
            # The JVM would log an error for each cancelled task.
            silence_jvm()
            self._session.sparkContext.cancelAllJobs()

    @staticmethod
    def _call_in_thread(function: Callable[[], None]) -> None:
        """Call a function in a new thread, and wait at most _STOP_TIMEOUT seconds for its end.

        The new thread uses its own connection to the JVM.
        """
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        thread.join(_STOP_TIMEOUT)


def silence_jvm() -> None:
    """Turn off the JVM's log messages until the next session, if a JVM is running."""
    with contextlib.suppress(Py4JError, OSError):
        if SparkContext._jvm is not None:
            log4j: Any = SparkContext._jvm.org.apache.logging.log4j
            log4j.core.config.Configurator.setAllLevels("", log4j.Level.OFF)
