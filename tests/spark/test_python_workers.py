"""State of the Python workers between two tasks."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import zipimport
from collections.abc import Iterator
from functools import partial
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from fer_pipeline.errors import ClusterError
from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.spark.error_messages import translate_spark_errors
from fer_pipeline.spark.read_plan import make_part_table, plan_tasks
from fer_pipeline.spark.session import describe_task_of_stage

UNUSED_MODULE = "pyspark.rddsampler"


def count_directory_reads(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield how often archives are read before a task, and the path of a module from one."""
    import fer_pipeline.spark  # noqa: F401

    with mock.patch.object(
        zipimport, "_read_directory", wraps=vars(zipimport)["_read_directory"]
    ) as read_directory:
        # As Spark's worker does before each task.
        importlib.invalidate_caches()
        reads = read_directory.call_count
    for _ in batches:
        module = importlib.import_module(UNUSED_MODULE)
        yield pa.RecordBatch.from_pylist([{"reads": reads, "path": module.__file__}])


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="zipimport itself reads them lazily")
def test_a_task_does_not_read_spark_s_archive_again(spark) -> None:
    (row,) = spark.range(1).mapInArrow(count_directory_reads, "reads bigint, path string").collect()

    assert row.reads == 0
    assert "/pyspark.zip/" in row.path


def test_the_error_for_a_killed_worker_names_the_files_that_it_read(spark) -> None:
    names = [f"/faces/{number}.png" for number in range(4)]
    table = make_part_table([FilePart(name, 1) for name in names])
    frame, iterate_parts = plan_tasks(spark, table, np.ones(4, np.int64), task_weight=2)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Read two files in each of two tasks; the second task dies at its second file."""
        for part in iterate_parts(batches):
            if part.name == names[3]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield pa.RecordBatch.from_pylist([{"name": part.name}])

    with (
        pytest.raises(ClusterError) as error,
        translate_spark_errors(describe_task=partial(describe_task_of_stage, spark)),
    ):
        frame.mapInArrow(read, "name string").collect()

    assert str(error.value).startswith(
        "a Python worker was killed while it was reading 2 files, /faces/2.png to /faces/3.png: by"
        " the system, as when the memory is full, or by a crash in native code"
    )
