"""State of the Python workers between two tasks."""

from __future__ import annotations

import importlib
import sys
import zipimport
from collections.abc import Iterator
from unittest import mock

import pyarrow as pa
import pytest

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
