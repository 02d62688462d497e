"""Start, settings and end of a job's Spark session."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext, TaskContext
from pyspark.errors import PySparkRuntimeError

# Re-exported: other packages use the type in annotations, but only this package imports pyspark.
from pyspark.sql import SparkSession as SparkSession

from fer_pipeline.errors import ClusterError, FerError, SparkStartError
from fer_pipeline.spark.error_messages import describe_start_failure, translate_spark_errors
from fer_pipeline.spark.interrupts import handle_interrupts, silence_jvm
from fer_pipeline.spark.java import find_java_home

SMALLEST_SPLIT = 1 << 20
"""Maximum size of a file that is always read by a single task, in bytes."""

_JVM_EXIT_TIMEOUT = 2  # seconds

_UNIT_BITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
"""Binary logarithm of each unit in Spark's notation of sizes."""

_JVM_DIED = (
    "Spark's Java process ended before the job; something killed it, as the system does if memory"
    " runs out (spark-submit's --driver-memory limits what Java may use)"
)

_SETTINGS = {
    # With the default, each small file counts as 4 MB, so that a task gets only 32 images.
    "spark.sql.files.openCostInBytes": str(SMALLEST_SPLIT),
    # Number of rows in a block of the cache. A row contains many records: 64 rows are 10 MB, and
    # the default of 10,000 rows would fill the heap.
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
"""Defaults of a session that runs barrier stages; settings of the user take precedence."""


@contextlib.contextmanager
def spark_session(job: str, *, barrier: bool = False) -> Iterator[SparkSession]:
    """Open the Spark session of a job, and stop it at the end of the context.

    Args:
        job: Name of the job, displayed by Spark.
        barrier: Whether the session runs barrier stages, whose tasks all run at the same time. If
            true, Spark's settings for them get suitable defaults.

    Yields:
        The session.

    Raises:
        ClusterError: Spark's JVM ended before the job.
        FerError: Spark failed with an error that the user can correct.
        KeyboardInterrupt: SIGINT arrived; the jobs of the session have been cancelled.
    """
    with handle_interrupts() as interrupt_handler:
        try:
            session = _open_session(job, _BARRIER_SETTINGS if barrier else {})
            interrupt_handler.attach(session)
            try:
                with translate_spark_errors(
                    str(session.sparkContext.master), partial(describe_task_of_stage, session)
                ):
                    yield session
            finally:
                interrupt_handler.stop_session()
        except FerError:
            # The job's error message must be the last message, but the JVM outlives the session and
            # logs warnings while it ends.
            silence_jvm()
            raise
        except Exception as error:
            if _has_jvm_ended():
                raise ClusterError(_JVM_DIED) from error
            raise


def _open_session(job: str, defaults: Mapping[str, str]) -> SparkSession:
    """Start the JVM if necessary, and open a session.

    If the program was not started by `spark-submit`, the environment variable JAVA_HOME of this
    process is set to a suitable Java installation first. PYSPARK_PYTHON is set if it is missing.

    Args:
        job: Name of the job, displayed by Spark.
        defaults: Settings to use if the user has not set their keys.

    Raises:
        JavaNotFoundError: The required version of Java was not found.
        SparkStartError: Spark did not start.
    """
    # These variables are needed by a plain `python jobs/...`. spark-submit sets both variables
    # itself, and its values must not be changed.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    _require_user_name()
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ["JAVA_HOME"] = str(find_java_home())
        if not _is_host_name_known():
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    user_conf = SparkConf(loadDefaults=False)
    try:
        if SparkContext._jvm is not None:
            # Turn the log on again after an earlier session that failed.
            SparkContext._jvm.org.apache.logging.log4j.core.config.Configurator.reconfigure()
        # Start the JVM, which reads the settings of the user.
        SparkContext._ensure_initialized()
        user_conf = SparkConf()
        unset_defaults: dict[str, Any] = {
            key: setting for key, setting in defaults.items() if not user_conf.contains(key)
        }
        builder = SparkSession.builder.appName(f"fer_pipeline {job}").config(map=unset_defaults)
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


def _require_user_name() -> None:
    """Check that this user has a name, which Hadoop asks the system for.

    Raises:
        SparkStartError: The user has no entry in `/etc/passwd`, as in a container with `--user`.
    """
    user_id = os.getuid()
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        raise SparkStartError(
            f"the user with the number {user_id} has no name here, and Spark needs one; in a"
            f" container, add the line user:x:{user_id}:0::/tmp:/bin/sh to /etc/passwd"
        ) from None


def _is_host_name_known() -> bool:
    """Return whether the name of this machine has an address, which Spark looks up."""
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return False
    return True


def describe_task_of_stage(session: SparkSession, stage: int, task: int) -> str:
    """Return which input files a task was reading, for an error message; empty if unknown.

    Args:
        session: The session, which may have lost its JVM.
        stage: Index of the stage.
        task: Index of the task in its stage.
    """
    # Imported here because training needs no image decoders.
    from fer_pipeline.spark.read_plan import describe_task

    with contextlib.suppress(Py4JError, OSError):
        stage_info = session.sparkContext.statusTracker().getStageInfo(stage)
        return describe_task(task, stage_info.numTasks) if stage_info else ""
    return ""


def _has_jvm_ended() -> bool:
    """Return whether the JVM that this process started has ended or ends within 2 s.

    The result is false if this process did not start a JVM.
    """
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return False
    # The connections to the JVM break a moment before its process ends.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_JVM_EXIT_TIMEOUT)
    return process.poll() is not None


def set_arrow_batch_size(session: SparkSession, row_count: int) -> None:
    """Set the maximum number of rows in the Arrow batches that Spark sends to Python workers.

    The setting applies to all plans that are executed afterwards, except persisted plans: they keep
    the number that was set when `persist` was called.

    Args:
        session: The session.
        row_count: Maximum number of rows in a batch.
    """
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(row_count))


def get_task_index() -> int:
    """Return the index of the current Spark task within its stage, from 0; 0 outside of a task."""
    task = TaskContext.get()
    return task.partitionId() if task else 0


def get_max_partition_bytes(session: SparkSession) -> int:
    """Return the maximum number of bytes of a file that one task reads.

    This is Spark's setting `spark.sql.files.maxPartitionBytes`.
    """
    return get_bytes_setting(session, "spark.sql.files.maxPartitionBytes")


def get_bytes_setting(session: SparkSession, key: str) -> int:
    """Return the value of a Spark setting that is a size, in bytes.

    If its text cannot be parsed, the result is 0.
    """
    text = session.conf.get(key) or ""
    size = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", text.strip().lower())
    return int(size[1]) << _UNIT_BITS[size[2]] if size else 0
