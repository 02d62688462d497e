"""What Spark says where it cannot start or go on, in a user's words."""

import os
import subprocess
import sys

import pytest

from fer_pipeline.errors import ClusterError, InputError
from fer_pipeline.spark.session import _user_error, _why_not

JAVA = "\n\tat org.apache.spark.SparkContext.<init>(SparkContext.scala:535)\n"
CALL = "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n: "
TRACEBACK = "Traceback (most recent call last):\n  File worker.py, line 1, in main\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "java.nio.file.NoSuchFileException: /a b/env.tar.gz",
            "/a b/env.tar.gz: no such file to ship to the executors",
        ),
        (
            "java.io.FileNotFoundException: File file:/tmp/spark-events does not exist",
            "/tmp/spark-events: no such file that a setting of Spark names",
        ),
        (
            "java.lang.IllegalStateException: LiveListenerBus is stopped.",
            "spark://host:7077: no Spark master answers there, or it wants no further application",
        ),
        (
            "java.lang.IllegalStateException: Spark context stopped while waiting for backend",
            "spark://host:7077: no Spark master answers there, or it wants no further application",
        ),
        (
            "org.apache.spark.SparkException: Could not parse Master URL: 'x'",
            "Spark did not start: org.apache.spark.SparkException: Could not parse Master URL: 'x';"
            " it says more above",
        ),
    ],
)
def test_why_it_did_not_start(said, meant):
    given = {"spark.archives": "file:/a%20b/env.tar.gz#e", "spark.master": "spark://host:7077"}
    assert _why_not(CALL + said + JAVA, given) == meant


@pytest.mark.parametrize(
    ("said", "kind", "meant"),
    [
        (
            'java.io.IOException: Cannot run program "./environment/bin/python": error=2, No such'
            " file or directory",
            ClusterError,
            "the executors have no ./environment/bin/python, or not the Python that it links to;",
        ),
        (
            f"{TRACEBACK}ModuleNotFoundError: No module named 'pyarrow'\n",
            ClusterError,
            "the executors' Python has no pyarrow; spark.pyspark.python names the one that they",
        ),
        (
            f"{TRACEBACK}PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has"
            " different version (3, 11) than that in driver 3.12, PySpark cannot run with",
            ClusterError,
            "the executors have another Python (Python in worker has different version (3, 11) than"
            " that in driver 3.12);",
        ),
        (
            'UnsupportedFileSystemException: No FileSystem for scheme "s3"',
            InputError,
            "the input cannot be read: Spark knows S3 as s3a://, with --packages org.apache.",
        ),
        (
            "ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found",
            InputError,
            "the input cannot be read: Spark needs --packages org.apache.hadoop:hadoop-aws:",
        ),
        (
            "Job 3 cancelled because SparkContext was shut down",
            ClusterError,
            "Spark stopped before the job had ended; it says above why",
        ),
    ],
)
def test_what_a_user_can_mend(said, kind, meant):
    found = _user_error(CALL + said + JAVA)
    assert type(found) is kind
    assert str(found).startswith(meant)


def test_a_master_that_is_gone_is_named():
    said = "Job 3 cancelled because SparkContext was shut down"
    assert str(_user_error(CALL + said + JAVA, "spark://host:7077")) == (
        "Spark stopped before the job had ended; spark://host:7077: no Spark master answers there,"
        " or it wants no further application"
    )


@pytest.mark.parametrize(
    "said",
    [
        # It was expected, and something else went wrong after it.
        f"{TRACEBACK}ModuleNotFoundError: No module named 'x'\n\nDuring handling:\nValueError: y",
        'java.io.IOException: Cannot run program "python3": error=12, Cannot allocate memory',
    ],
)
def test_what_is_told_as_it_is(said):
    assert _user_error(CALL + said + JAVA) is None


def test_the_jvm_says_nothing_between_an_error_and_the_next_session():
    job = """
import contextlib
from pyspark import SparkContext
from fer_pipeline.errors import SparkStartError
from fer_pipeline.spark.session import _open, spark_session

try:
    with spark_session("test"):
        raise AssertionError("it started")
except SparkStartError as error:
    print("error:", error)
    log = SparkContext._jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.x")
    log.error("late")
    with contextlib.suppress(SparkStartError):
        _open("test", {})
    log.error("of the next session")
"""
    environment = {"PYSPARK_SUBMIT_ARGS": "--master local --files /none pyspark-shell"}
    done = subprocess.run(
        [sys.executable, "-c", job],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "error: /none: no such file to ship to the executors\n", done.stderr
    assert "late" not in done.stderr
    assert "of the next session" in done.stderr
