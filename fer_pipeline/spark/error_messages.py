"""Translation of Spark's errors into errors that a user can act on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from fer_pipeline import errors
from fer_pipeline.errors import ClusterError, FerError, InputError, StorageError
from fer_pipeline.extras import EXTRAS, suggest_install


def _suggest_hadoop_aws() -> str:
    """Return the option of spark-submit for Hadoop's package for S3, in the version of Spark's."""
    jars = Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar")
    version = next((jar.stem.rpartition("-")[2] for jar in jars), "VERSION")
    return f"--packages org.apache.hadoop:hadoop-aws:{version}"


_HADOOP_AWS = _suggest_hadoop_aws()

_INPUT_ERRORS = (
    (r"(EOFException|ZipException|incorrect data check)[^\n]*", "a compressed file is damaged"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs.s3a[^\n]*", f"Spark needs {_HADOOP_AWS}"),
    (r"No FileSystem for scheme[^\n]*", "Spark has no filesystem of this kind"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs[^\n]*", "Spark lacks this filesystem"),
    (r"(ConnectException|UnknownHostException)[^\n]*", "its filesystem does not answer"),
)
"""Patterns of Spark's messages about unreadable inputs, with explanations for the user."""

_PYTHON_HINT = "set spark.pyspark.python to a Python that they have, or ship one with --archives"

_PYTHON_ERRORS = (
    (
        r'Cannot run program "(?P<detail>[^"]+)": error=2,',
        "the executors have no {detail}, or not the Python that it links to",
    ),
    (
        # Only at the end of a traceback, which may have notes of `steps.error_context`: an earlier
        # error may have been expected and handled.
        r"ModuleNotFoundError: No module named '(?P<detail>[^']+)'"
        r"(?:\nwhile [^\n]*)*\s*(?:\n\s*at |$)",
        "the executors' Python has no {detail}",
    ),
    (
        r"PYTHON_VERSION_MISMATCH\] (?P<detail>[^\n]+? than that in driver [\d.]+\d)",
        "the executors have a different Python ({detail})",
    ),
)
"""Patterns of Spark's messages about unusable Python environments on the executors, with
explanations for the user."""

_KILLED_WORKER = (
    r"Task (?P<task>\d+) in stage (?P<stage>\d+)\.\d+ failed.*?"
    r"(?:Python worker exited unexpectedly|SocketException: (?:Connection reset|Broken pipe))"
)
"""Pattern of the messages about a Python worker whose process ended during a task."""

_CONTEXT_STOPPED = (
    r"LiveListenerBus is stopped|on a running MetricsSystem|stopped SparkContext"
    r"|[Ss]park ?[Cc]ontext (?:was |has been |is being )?(?:stopped|shut ?down)"
)
"""Pattern of the messages of a SparkContext that shut itself down in the background."""

_SHIPPED_FILES_SETTINGS = (
    "spark.archives",
    "spark.files",
    "spark.submit.pyFiles",
)


@contextlib.contextmanager
def translate_spark_errors(
    master: str = "", describe_task: Callable[[int, int], str] = lambda stage, task: ""
) -> Iterator[None]:
    """Replace Spark errors in the context by this package's errors if the cause is known.

    Args:
        master: URL of Spark's master, for the error text about an unreachable master.
        describe_task: Function that returns what a task was doing, from the index of the stage and
            the index of the task, for the error text about a killed Python worker.

    Raises:
        FerError: Spark raised an error with a cause that the user can correct. All other errors
            are passed on unchanged.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        translated = translate_message(str(error), master, describe_task)
        if translated is None:
            raise
        raise translated from error


def translate_message(
    text: str, master: str = "", describe_task: Callable[[int, int], str] = lambda stage, task: ""
) -> FerError | None:
    """Convert an error message of Spark to an error of this package.

    Args:
        text: Complete message, including the traceback of the Python worker if there is one.
        master: URL of Spark's master, for the error text about an unreachable master.
        describe_task: Function that returns what a task was doing, from the index of the stage and
            the index of the task.

    Returns:
        An error with a message for the user; None if the cause is unknown.
    """
    # An error raised in a worker arrives as text: the last line of the traceback contains the name
    # of the error class.
    worker_error = re.search(r"fer_pipeline\.errors\.(\w+): (.+)", text)
    if worker_error:
        return getattr(errors, worker_error[1])(worker_error[2].strip())
    for pattern, explanation in _PYTHON_ERRORS:
        match = re.search(pattern, text)
        if match:
            problem = explanation.format(detail=match["detail"])
            if match["detail"] in EXTRAS:
                problem = f"{problem} ({suggest_install(match['detail'])})"
            return ClusterError(f"{problem}; {_PYTHON_HINT}")
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (.+?)\.?(?: SQLSTATE|\n|$)", text)
    if missing:
        return InputError(f"{missing[1].removeprefix('file:')}: no such file or folder")
    if "No space left on device" in text:
        return StorageError("the disk is full; nothing was published")
    vanished = re.search(r"FileNotFoundException: (?:File )?(\S+) does not exist", text)
    if vanished:
        return InputError(f"{vanished[1]}: disappeared while it was read")
    killed = re.search(_KILLED_WORKER, text, re.DOTALL)
    if killed:
        doing = describe_task(int(killed["stage"]), int(killed["task"]))
        return ClusterError(
            f"a Python worker was killed{doing}: by the system, as when the memory is full, or by a"
            " crash in native code; nothing was published"
        )
    for pattern, explanation in _INPUT_ERRORS:
        match = re.search(pattern, text)
        if match:
            return InputError(f"the input cannot be read: {explanation} ({match[0].strip()[:160]})")
    denied = re.search(r"(/.+?) \(Permission denied\)", text)
    if denied:
        return StorageError(f"{denied[1]}: permission denied")
    if re.search(_CONTEXT_STOPPED, text):
        cause = _explain_lost_master(master) or "see its messages above"
        return ClusterError(f"Spark stopped before the job had ended; {cause}")
    return None


def describe_start_failure(text: str, settings: Mapping[str, str]) -> str:
    """Explain in one sentence why Spark did not start.

    Args:
        text: Spark's error message.
        settings: Settings of the session by key, such as `spark.master`.
    """
    missing = re.search(
        r"NoSuchFileException: (.+)|FileNotFoundException: File (.+) does not", text
    )
    if missing:
        path = (missing[1] or missing[2]).removeprefix("file:")
        shipped = unquote(" ".join(settings.get(key, "") for key in _SHIPPED_FILES_SETTINGS))
        purpose = "to ship to the executors" if path in shipped else "that a setting of Spark names"
        return f"{path}: no such file {purpose}"
    master_lost = _explain_lost_master(settings.get("spark.master", ""))
    if master_lost and re.search(_CONTEXT_STOPPED, text):
        return master_lost
    (cause,) = re.findall(r"^: (.*)", text, re.MULTILINE)[:1] or [text]
    return f"Spark did not start: {cause[:200]}; see its messages above"


def _explain_lost_master(master: str) -> str:
    """Return the error text for a SparkContext that could not reach its standalone master.

    A SparkContext that cannot register with the master for a minute stops itself in the background.

    Args:
        master: URL of Spark's master.

    Returns:
        The text; empty if `master` is not a standalone master (`spark://...`).
    """
    if not master.startswith("spark:"):
        return ""
    return f"{master}: no Spark master answers there, or it accepts no further application"
