"""The Spark session of a job, and its errors in a user's words."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext, TaskContext
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.sql import SparkSession as SparkSession

from fer_pipeline import errors
from fer_pipeline.errors import (
    ClusterError,
    FerError,
    InputError,
    SparkStartError,
    StorageError,
)
from fer_pipeline.spark.java import find_java_home

SMALLEST_SPLIT = 1 << 20
"""A file of up to this many bytes is always read by one task."""

_SECONDS_TO_STOP = 10
_SECONDS_TO_END = 2
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

_HADOOP_AWS = "--packages org.apache.hadoop:hadoop-aws:3.3.4"
_UNREADABLE = (
    (r"(EOFException|ZipException|incorrect data check)[^\n]*", "a compressed file is damaged"),
    (r'No FileSystem for scheme "s3"', f"Spark knows S3 as s3a://, with {_HADOOP_AWS}"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs.s3a[^\n]*", f"Spark needs {_HADOOP_AWS}"),
    (r"No FileSystem for scheme[^\n]*", "Spark has no filesystem of this kind"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs[^\n]*", "Spark lacks this filesystem"),
    (r"(ConnectException|UnknownHostException)[^\n]*", "its filesystem does not answer"),
)
"""What Spark says of inputs that it cannot read, and what that means."""

_WORKERS_PYTHON = "spark.pyspark.python names the one that they run, --archives ships one"
_UNFIT = (
    (
        r'Cannot run program "(?P<what>[^"]+)": error=2,',
        "the executors have no {what}, or not the Python that it links to",
    ),
    (
        # What ends the traceback: one before it may have been expected.
        r"ModuleNotFoundError: No module named '(?P<what>[^']+)'\s*(?:\n\s*at |$)",
        "the executors' Python has no {what}",
    ),
    (
        r"PYTHON_VERSION_MISMATCH\] (?P<what>[^\n]+? than that in driver [\d.]+\d)",
        "the executors have another Python ({what})",
    ),
)
"""What Spark says of a Python of the executors with which no job can run, and what that means."""

_NO_JVM = (
    "Spark's Java process has ended before the job had; something killed it, which the system does"
    " where memory runs out (spark-submit's --driver-memory says how much Java may use)"
)

_GIVEN_UP = (
    r"LiveListenerBus is stopped|on a running MetricsSystem|stopped SparkContext"
    r"|[Ss]park ?[Cc]ontext (?:was |has been |is being )?(?:stopped|shut ?down)"
)
"""What Spark says where it has stopped itself, which it does beside what it is about to do."""

_SHIPPED = ("spark.archives", "spark.files", "spark.submit.pyFiles")

_SETTINGS = {
    # The default counts every small file as 4 MB, which makes a task of 32 images.
    "spark.sql.files.openCostInBytes": str(SMALLEST_SPLIT),
    # Blocks of a cache of packs: 64 of them are 10 MB, the default's 10,000 would fill the heap.
    "spark.sql.inMemoryColumnarStorage.batchSize": "64",
    "spark.sql.session.timeZone": "UTC",
}


_OF_BARRIERS = {
    # A process that has met the others once cannot do so again.
    "spark.python.worker.reuse": "false",
    # Seconds; the default is a year. The others wait while the first fits the temperature and
    # writes what all have made.
    "spark.barrier.sync.timeout": "3600",
    # For a minute, where an executor that was lost is being replaced; the default is ten.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "2s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "30",
}
"""What a session is started with whose tasks wait for each other, unless the user sets it."""


@contextlib.contextmanager
def spark_session(job: str, *, barrier: bool = False) -> Iterator[SparkSession]:
    """The session of a job, with the settings that its plans rely on; stopped at the end.

    Args:
        job: The name that Spark shows.
        barrier: Whether its tasks are to run at the same time and to know each other.

    Raises:
        FerError: In place of Spark's own errors, where a user can mend what caused them.
    """
    with _interruptible() as stop:
        try:
            session = _open(job, _OF_BARRIERS if barrier else {})
            stop.watch(session)
            try:
                with translate_spark_errors(str(session.sparkContext.master)):
                    yield session
            finally:
                stop.session()
        except FerError:
            # The error's line comes last: the JVM outlives its session, and warns while it ends.
            _silence()
            raise
        except Exception as error:
            if _jvm_has_ended():
                raise ClusterError(_NO_JVM) from error
            raise


class _Stop:
    """How Ctrl-C ends a session: with a KeyboardInterrupt, whatever the JVM is doing.

    Spark's own handler calls the JVM from within another call to it, which then fails.
    """

    def __init__(self) -> None:
        self.came = False
        self._session: SparkSession | None = None

    def hold(self, *_: object) -> None:
        """Handles the signal while the JVM starts: one that is left alone then stays forever."""
        self.came = True

    def watch(self, session: SparkSession) -> None:
        """Handles the signal from here on."""
        self._session = session
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)
        if self.came:
            self.session()
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        if not self.came:
            self.came = True
            # py4j tells of every call that breaks off; they all do.
            logging.disable(logging.CRITICAL)
            self._apart(self._quiet)
            raise KeyboardInterrupt

    def _quiet(self) -> None:
        if self._session is not None:
            _silence()
            self._session.sparkContext.cancelAllJobs()

    def session(self) -> None:
        """Stops the session."""
        if self._session is None:
            return
        if self.came:
            self._apart(self._session.stop)
        else:
            self._session.stop()

    @staticmethod
    def _apart(call: Callable[[], None]) -> None:
        """Calls the JVM from another thread, which has a connection of its own."""
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(_SECONDS_TO_STOP)


def _silence() -> None:
    """Lets the JVM, where there is one, log nothing until the next session."""
    with contextlib.suppress(Py4JError, OSError):
        if SparkContext._jvm is not None:
            log4j: Any = SparkContext._jvm.org.apache.logging.log4j
            log4j.core.config.Configurator.setAllLevels("", log4j.Level.OFF)


def _jvm_has_ended() -> bool:
    """Whether the JVM that this process has started is gone."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return False
    # Its connections break a moment before it is gone.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    return process.poll() is not None


@contextlib.contextmanager
def _interruptible() -> Iterator[_Stop]:
    stop = _Stop()
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, stop.hold) if main else None
    try:
        yield stop
    except BaseException:
        if stop.came:
            # Whatever else broke off, this is why.
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _open(job: str, settings: Mapping[str, str]) -> SparkSession:
    # For a plain `python jobs/...`; spark-submit has set both, and then they stay as they are.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ["JAVA_HOME"] = str(find_java_home())
    given = SparkConf(loadDefaults=False)
    try:
        if SparkContext._jvm is not None:
            # The error of a session before has silenced it.
            SparkContext._jvm.org.apache.logging.log4j.core.config.Configurator.reconfigure()
        # Starts the JVM, which knows what the user has set.
        SparkContext._ensure_initialized()
        given = SparkConf()
        ours: dict[str, Any] = {
            key: value for key, value in settings.items() if not given.contains(key)
        }
        session = SparkSession.builder.appName(f"fer_pipeline {job}").config(map=ours).getOrCreate()
        for key, value in _SETTINGS.items():
            session.conf.set(key, value)
        # Where the JVM goes away it would print a traceback, beside the error that ends the job.
        updates: Any = session.sparkContext._accumulatorServer
        updates.handle_error = lambda *_: None
        return session
    except Py4JJavaError as error:
        raise SparkStartError(_why_not(str(error), dict(given.getAll()))) from error
    except PySparkRuntimeError as error:
        if "JAVA_GATEWAY_EXITED" not in str(error):
            raise
        raise SparkStartError(
            "Spark did not start; what it says of the cause stands above"
        ) from None


def _why_not(text: str, given: Mapping[str, str]) -> str:
    """Why there is no session, as far as Spark tells.

    Args:
        text: What it says.
        given: Its settings.
    """
    missing = re.search(
        r"NoSuchFileException: (.+)|FileNotFoundException: File (.+) does not", text
    )
    if missing:
        path = (missing[1] or missing[2]).removeprefix("file:")
        shipped = unquote(" ".join(given.get(key, "") for key in _SHIPPED))
        what = "to ship to the executors" if path in shipped else "that a setting of Spark names"
        return f"{path}: no such file {what}"
    gone = _is_gone(given.get("spark.master", ""))
    if gone and re.search(_GIVEN_UP, text):
        return gone
    (cause,) = re.findall(r"^: (.*)", text, re.MULTILINE)[:1] or [text]
    return f"Spark did not start: {cause[:200]}; it says more above"


def _is_gone(master: str) -> str:
    """What it means that Spark has stopped itself; empty where the master is none of its own.

    It does so, a minute after the start, beside whatever it is doing by then.
    """
    if not master.startswith("spark:"):
        return ""
    return f"{master}: no Spark master answers there, or it wants no further application"


def set_arrow_batch_size(session: SparkSession, count: int) -> None:
    """Sets how many rows a Python worker gets at once, in what is executed from here on.

    A plan that is persisted keeps what was set then.
    """
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(count))


def task_id() -> int:
    """In a Python worker, which of its stage's tasks this is, from 0."""
    task = TaskContext.get()
    return task.partitionId() if task else 0


def max_partition_bytes(session: SparkSession) -> int:
    """The bytes of a file that one task reads at most, as the user may have set it."""
    text = session.conf.get("spark.sql.files.maxPartitionBytes") or ""
    found = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", text.strip().lower())
    # Another form than Spark's own documentation has: assume the worst, that every file is cut.
    return int(found[1]) << _UNITS[found[2]] if found else 0


@contextlib.contextmanager
def translate_spark_errors(master: str = "") -> Iterator[None]:
    """Turns Spark's errors into ours where a user can mend their cause.

    Args:
        master: Of the session.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        known = _user_error(str(error), master)
        if known is None:
            raise
        raise known from error


def _user_error(text: str, master: str = "") -> FerError | None:
    # A worker's error arrives as text: the traceback's last line names our class.
    ours = re.search(r"fer_pipeline\.errors\.(\w+): (.+)", text)
    if ours:
        return getattr(errors, ours[1])(ours[2].strip())
    for pattern, meaning in _UNFIT:
        unfit = re.search(pattern, text)
        if unfit:
            return ClusterError(f"{meaning.format(what=unfit['what'])}; {_WORKERS_PYTHON}")
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (.+?)\.?(?: SQLSTATE|\n|$)", text)
    if missing:
        return InputError(f"{missing[1].removeprefix('file:')}: no such file or folder")
    if "No space left on device" in text:
        return StorageError("the disk is full; nothing was published")
    gone = re.search(r"FileNotFoundException: (?:File )?(\S+) does not exist", text)
    if gone:
        return InputError(f"{gone[1]}: went away while it was read")
    for pattern, meaning in _UNREADABLE:
        found = re.search(pattern, text)
        if found:
            return InputError(f"the input cannot be read: {meaning} ({found[0].strip()[:160]})")
    denied = re.search(r"(/.+?) \(Permission denied\)", text)
    if denied:
        return StorageError(f"{denied[1]}: permission denied")
    if re.search(_GIVEN_UP, text):
        why = _is_gone(master) or "it says above why"
        return ClusterError(f"Spark stopped before the job had ended; {why}")
    return None
