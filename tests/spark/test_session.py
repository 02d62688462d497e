"""The log of the JVM around a session that fails."""

import os
import subprocess
import sys


def test_the_jvm_is_silent_between_an_error_and_the_next_session():
    job = """
import contextlib
from pyspark import SparkContext
from fer_pipeline.errors import SparkStartError
from fer_pipeline.spark.session import _open_session, spark_session

try:
    with spark_session("test"):
        raise AssertionError("it started")
except SparkStartError as error:
    print("error:", error)
    log = SparkContext._jvm.org.apache.logging.log4j.LogManager.getLogger("org.apache.spark.x")
    log.error("late")
    with contextlib.suppress(SparkStartError):
        _open_session("test", {})
    log.error("of the next session")
"""
    environment = {"PYSPARK_SUBMIT_ARGS": "--master local --files /none pyspark-shell"}
    process = subprocess.run(
        [sys.executable, "-c", job],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.stdout == "error: /none: no such file to ship to the executors\n", process.stderr
    assert "late" not in process.stderr
    assert "of the next session" in process.stderr
