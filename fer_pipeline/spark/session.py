"""The Spark session of a job: settings, start and end."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext, TaskContext
from pyspark.errors import PySparkRuntimeError

# Re-exported: the packages above may name the type, but only this package imports pyspark.
from pyspark.sql import SparkSession as SparkSession

from fer_pipeline.errors import ClusterError, FerError, SparkStartError
from fer_pipeline.spark.error_messages import describe_start_failure, translate_spark_errors
from fer_pipeline.spark.interrupts import handle_interrupts, silence_jvm
from fer_pipeline.spark.java import find_java_home

SMALLEST_SPLIT = 1 << 20
"""Largest size, in bytes, of a file that is always read by one task."""

_JVM_EXIT_TIMEOUT = 2  # seconds

_UNIT_BITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
"""Binary logarithm of each unit in which Spark states a size."""

_JVM_DIED = (
    "Spark's Java process ended before the job; something killed it, as the system does if memory"
    " runs out (spark-submit's --driver-memory limits what Java may use)"
)

_SETTINGS = {
    # By the default each small file counts as 4 MB, which makes a task of 32 images.
    "spark.sql.files.openCostInBytes": str(SMALLEST_SPLIT),
    # Rows in a block of the cache. A row holds many records: 64 rows are 10 MB, and the default of
    # 10,000 would fill the heap.
    "spark.sql.inMemoryColumnarStorage.batchSize": "64",
    "spark.sql.session.timeZone": "UTC",
}

_BARRIER_SETTINGS = {
    # A process that has joined a group of TensorFlow workers cannot join a second one.
    "spark.python.worker.reuse": "false",
    # Seconds; the default is a year. The other workers wait while the first one fits the
    # temperature and writes the run.
    "spark.barrier.sync.timeout": "3600",
    # Wait for a minute, not for ten seconds, while a lost executor is replaced.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "2s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "30",
}
"""Defaults of a session that runs barrier stages; the user's own settings win."""


@contextlib.contextmanager
def spark_session(job: str, *, barrier: bool = False) -> Iterator[SparkSession]:
    """Open the session of a job with the settings that its plans rely on, and stop it at the end.

    Args:
        job: Name of the job, shown by Spark.
        barrier: Whether the session runs barrier stages, see `fer_pipeline.spark.barrier`.

    Raises:
        FerError: In place of Spark's own error if a user can correct the cause.
    """
    with handle_interrupts() as interrupt_handler:
        try:
            session = _open_session(job, _BARRIER_SETTINGS if barrier else {})
            interrupt_handler.attach(session)
            try:
                with translate_spark_errors(str(session.sparkContext.master)):
                    yield session
            finally:
                interrupt_handler.stop_session()
        except FerError:
            # The job's error message must come last: the JVM outlives its session, and logs
            # warnings while it ends.
            silence_jvm()
            raise
        except Exception as error:
            if _is_jvm_dead():
                raise ClusterError(_JVM_DIED) from error
            raise


def _open_session(job: str, defaults: Mapping[str, str]) -> SparkSession:
    """Start the JVM if necessary, and open a session.

    Args:
        job: Name of the job, shown by Spark.
        defaults: Settings for the keys that the user has not set.

    Raises:
        SparkStartError: Spark did not start.
    """
    # For a plain `python jobs/...`: spark-submit sets both itself, and they must stay as they are.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ["JAVA_HOME"] = str(find_java_home())
    user_conf = SparkConf(loadDefaults=False)
    try:
        if SparkContext._jvm is not None:
            # Turn the log on again after an earlier session that failed.
            SparkContext._jvm.org.apache.logging.log4j.core.config.Configurator.reconfigure()
        # Start the JVM, which knows the user's settings.
        SparkContext._ensure_initialized()
        user_conf = SparkConf()
        unset: dict[str, Any] = {
            key: setting for key, setting in defaults.items() if not user_conf.contains(key)
        }
        builder = SparkSession.builder.appName(f"fer_pipeline {job}").config(map=unset)
        session = builder.getOrCreate()
        for key, setting in _SETTINGS.items():
            session.conf.set(key, setting)
        # If the JVM dies, this server prints a traceback in addition to the job's error.
        accumulator_server: Any = session.sparkContext._accumulatorServer
        accumulator_server.handle_error = lambda *_: None
        return session
    except Py4JJavaError as error:
        message = describe_start_failure(str(error), dict(user_conf.getAll()))
        raise SparkStartError(message) from error
    except PySparkRuntimeError as error:
        if "JAVA_GATEWAY_EXITED" not in str(error):
            raise
        raise SparkStartError("Spark did not start; see its messages above") from None


def _is_jvm_dead() -> bool:
    """Return whether the JVM that this process started has ended."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return False
    # Its connections break a moment before it ends.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_JVM_EXIT_TIMEOUT)
    return process.poll() is not None


def set_arrow_batch_size(session: SparkSession, row_count: int) -> None:
    """Set the number of rows that a Python worker gets at once, for plans executed from now on.

    A persisted plan keeps the batch size that it was persisted with.
    """
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(row_count))


def get_task_index() -> int:
    """Return the index of the current task within its stage, from 0; 0 outside of a task."""
    task = TaskContext.get()
    return task.partitionId() if task else 0


def get_max_partition_bytes(session: SparkSession) -> int:
    """Return the most bytes of a file that one task reads, a setting that the user may change."""
    text = session.conf.get("spark.sql.files.maxPartitionBytes") or ""
    size = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", text.strip().lower())
    # Not a form that Spark documents: assume the worst case, that every file is split.
    return int(size[1]) << _UNIT_BITS[size[2]] if size else 0
