"""Translation of Spark's errors into errors that a user can act on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from fer_pipeline import errors
from fer_pipeline.errors import ClusterError, FerError, InputError, StorageError

_HADOOP_AWS = "--packages org.apache.hadoop:hadoop-aws:3.3.4"

_INPUT_ERRORS = (
    (r"(EOFException|ZipException|incorrect data check)[^\n]*", "a compressed file is damaged"),
    (r'No FileSystem for scheme "s3"', f"Spark knows S3 as s3a://, with {_HADOOP_AWS}"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs.s3a[^\n]*", f"Spark needs {_HADOOP_AWS}"),
    (r"No FileSystem for scheme[^\n]*", "Spark has no filesystem of this kind"),
    (r"ClassNotFoundException: Class org.apache.hadoop.fs[^\n]*", "Spark lacks this filesystem"),
    (r"(ConnectException|UnknownHostException)[^\n]*", "its filesystem does not answer"),
)
"""Patterns of Spark's messages about inputs that it cannot read, and their explanations."""

_PYTHON_HINT = "set spark.pyspark.python to a Python that they have, or ship one with --archives"

_PYTHON_ERRORS = (
    (
        r'Cannot run program "(?P<detail>[^"]+)": error=2,',
        "the executors have no {detail}, or not the Python that it links to",
    ),
    (
        # Only at the end of a traceback: an earlier one may have been expected and handled.
        r"ModuleNotFoundError: No module named '(?P<detail>[^']+)'\s*(?:\n\s*at |$)",
        "the executors' Python has no {detail}",
    ),
    (
        r"PYTHON_VERSION_MISMATCH\] (?P<detail>[^\n]+? than that in driver [\d.]+\d)",
        "the executors have another Python ({detail})",
    ),
)
"""Patterns of Spark's messages about an unusable Python on the executors, and explanations."""

_CONTEXT_STOPPED = (
    r"LiveListenerBus is stopped|on a running MetricsSystem|stopped SparkContext"
    r"|[Ss]park ?[Cc]ontext (?:was |has been |is being )?(?:stopped|shut ?down)"
)
"""Messages of a SparkContext that shut itself down in the background."""

_SHIPPED_FILES_SETTINGS = (
    "spark.archives",
    "spark.files",
    "spark.submit.pyFiles",
)


@contextlib.contextmanager
def translate_spark_errors(master: str = "") -> Iterator[None]:
    """Replace Spark's errors by ours if a user can correct their cause.

    Args:
        master: URL of the session's master, for the message of a lost master.

    Raises:
        FerError: In place of a Spark error with a known cause. All others pass unchanged.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        translated = translate_message(str(error), master)
        if translated is None:
            raise
        raise translated from error


def translate_message(text: str, master: str = "") -> FerError | None:
    """Return the error that explains a message of Spark, or None if its cause is unknown.

    Args:
        text: Whole message, with the traceback of a Python worker if there is one.
        master: URL of the session's master.
    """
    # An error raised in a worker arrives as text: the traceback's last line names our class.
    worker_error = re.search(r"fer_pipeline\.errors\.(\w+): (.+)", text)
    if worker_error:
        return getattr(errors, worker_error[1])(worker_error[2].strip())
    for pattern, explanation in _PYTHON_ERRORS:
        match = re.search(pattern, text)
        if match:
            return ClusterError(f"{explanation.format(detail=match['detail'])}; {_PYTHON_HINT}")
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (.+?)\.?(?: SQLSTATE|\n|$)", text)
    if missing:
        return InputError(f"{missing[1].removeprefix('file:')}: no such file or folder")
    if "No space left on device" in text:
        return StorageError("the disk is full; nothing was published")
    vanished = re.search(r"FileNotFoundException: (?:File )?(\S+) does not exist", text)
    if vanished:
        return InputError(f"{vanished[1]}: disappeared while it was read")
    for pattern, explanation in _INPUT_ERRORS:
        match = re.search(pattern, text)
        if match:
            return InputError(f"the input cannot be read: {explanation} ({match[0].strip()[:160]})")
    denied = re.search(r"(/.+?) \(Permission denied\)", text)
    if denied:
        return StorageError(f"{denied[1]}: permission denied")
    if re.search(_CONTEXT_STOPPED, text):
        cause = _master_lost_message(master) or "see its messages above"
        return ClusterError(f"Spark stopped before the job had ended; {cause}")
    return None


def describe_start_failure(text: str, settings: Mapping[str, str]) -> str:
    """Return one sentence about why Spark did not start.

    Args:
        text: Spark's message.
        settings: The session's settings by key, such as `spark.master`.
    """
    missing = re.search(
        r"NoSuchFileException: (.+)|FileNotFoundException: File (.+) does not", text
    )
    if missing:
        path = (missing[1] or missing[2]).removeprefix("file:")
        shipped = unquote(" ".join(settings.get(key, "") for key in _SHIPPED_FILES_SETTINGS))
        purpose = "to ship to the executors" if path in shipped else "that a setting of Spark names"
        return f"{path}: no such file {purpose}"
    master_lost = _master_lost_message(settings.get("spark.master", ""))
    if master_lost and re.search(_CONTEXT_STOPPED, text):
        return master_lost
    (cause,) = re.findall(r"^: (.*)", text, re.MULTILINE)[:1] or [text]
    return f"Spark did not start: {cause[:200]}; see its messages above"


def _master_lost_message(master: str) -> str:
    """Explain a context that stopped itself; empty unless the master is a standalone one.

    A context gives up its master a minute after the start, in the background.
    """
    if not master.startswith("spark:"):
        return ""
    return f"{master}: no Spark master answers there, or it accepts no further application"
