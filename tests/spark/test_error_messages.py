"""Translation of messages that Spark really prints."""

import pytest

from fer_pipeline.errors import ClusterError, InputError
from fer_pipeline.spark.error_messages import describe_start_failure, translate_message

JAVA = "\n\tat org.apache.spark.SparkContext.<init>(SparkContext.scala:535)\n"
CALL = "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n: "
TRACEBACK = "Traceback (most recent call last):\n  File worker.py, line 1, in main\n"


@pytest.mark.parametrize(
    ("message", "explanation"),
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
            "spark://host:7077: no Spark master answers there",
        ),
        (
            "java.lang.IllegalStateException: Spark context stopped while waiting for backend",
            "spark://host:7077: no Spark master answers there",
        ),
        (
            "org.apache.spark.SparkException: Could not parse Master URL: 'x'",
            "Spark did not start: org.apache.spark.SparkException: Could not parse Master URL: 'x'",
        ),
    ],
)
def test_a_failed_start_is_described(message, explanation):
    settings = {"spark.archives": "file:/a%20b/env.tar.gz#e", "spark.master": "spark://host:7077"}
    assert describe_start_failure(CALL + message + JAVA, settings).startswith(explanation)


@pytest.mark.parametrize(
    ("message", "error_class", "explanation"),
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
            "the executors' Python has no pyarrow (pip install 'fer_pipeline[spark]' or"
            " 'fer_pipeline[train]'); set spark.pyspark.python",
        ),
        (
            f"{TRACEBACK}ModuleNotFoundError: No module named 'my_networks'\n",
            ClusterError,
            "the executors' Python has no my_networks; set spark.pyspark.python",
        ),
        (
            f"{TRACEBACK}ModuleNotFoundError: No module named 'tensorflow'\nwhile scoring images of"
            " a b.csv\n",
            ClusterError,
            "the executors' Python has no tensorflow (pip install 'fer_pipeline[train]'); set",
        ),
        (
            f"{TRACEBACK}PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has"
            " different version (3, 11) than that in driver 3.12, PySpark cannot run with",
            ClusterError,
            "the executors have a different Python (Python in worker has different version (3, 11)"
            " than that in driver 3.12);",
        ),
        (
            "Task 1 in stage 0.0 failed 1 times: Python worker exited unexpectedly (crashed).",
            ClusterError,
            "a Python worker was killed: by the system, as when the memory is full, or by a crash",
        ),
        (
            "Task 1 in stage 0.0 failed 1 times: java.net.SocketException: Connection reset",
            ClusterError,
            "a Python worker was killed: by the system, as when the memory is full, or by a crash",
        ),
        (
            "ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found",
            InputError,
            "the input cannot be read: Spark needs --packages org.apache.hadoop:hadoop-aws:",
        ),
        (
            "Job 3 cancelled because SparkContext was shut down",
            ClusterError,
            "Spark stopped before the job had ended",
        ),
    ],
)
def test_an_error_that_a_user_can_correct_is_explained(message, error_class, explanation):
    error = translate_message(CALL + message + JAVA)
    assert type(error) is error_class
    assert str(error).startswith(explanation)


def test_a_lost_master_is_named():
    message = "Job 3 cancelled because SparkContext was shut down"
    error = translate_message(CALL + message + JAVA, "spark://host:7077")
    assert type(error) is ClusterError
    assert "spark://host:7077: no Spark master answers there" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        # The first error was expected, and a second one followed it.
        f"{TRACEBACK}ModuleNotFoundError: No module named 'x'\n\nDuring handling:\nValueError: y",
        'java.io.IOException: Cannot run program "python3": error=12, Cannot allocate memory',
    ],
)
def test_an_unknown_error_is_not_translated(message):
    assert translate_message(CALL + message + JAVA) is None
