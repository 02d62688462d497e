"""Division of the input files among Spark's tasks.

Spark only gets the number of tasks. The list of files of each task travels as a broadcast variable,
compressed, and the Python worker reads the files itself: their content does not pass through the
JVM.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.io.input_listing import FILE_SCHEMA
from fer_pipeline.spark.read_records import Batches

PART_SCHEMA = pa.schema([*FILE_SCHEMA, ("start", pa.int64()), ("end", pa.int64())])
"""The columns of a part of a file: those of the file, and the start and end of the part in bytes;
the end is null if it is the end of the file."""

_ROWS_AT_ONCE = 1024

_latest_tasks: list[bytes] = []
"""The tasks of the latest plan of this process, for `describe_task`."""


def plan_tasks(
    spark: SparkSession, parts: pa.Table, weights: npt.NDArray[np.int64], task_weight: int
) -> tuple[DataFrame, Callable[[Batches], Iterator[FilePart]]]:
    """Divide parts of files among tasks, in their order.

    Args:
        spark: The session.
        parts: The parts, with the columns PART_SCHEMA.
        weights: Weight of each part, of shape (parts,). A part with the weight 0 is read by the
            same task as the one before it.
        task_weight: Weight of the parts of one task; a task has at least one part.

    Returns:
        A frame with one partition for each task, and a function that yields the parts of a task
        from the Arrow batches of its partition.
    """
    starts = _find_task_starts(weights, task_weight)
    ends = [*starts[1:], len(parts)]
    tasks = [_compress(parts.slice(a, b - a)) for a, b in zip(starts, ends, strict=True)]
    _latest_tasks[:] = tasks
    broadcast = spark.sparkContext.broadcast(tasks)
    frame = spark.range(0, len(tasks), 1, len(tasks))
    return frame, functools.partial(_iterate_parts, tasks=broadcast)


def describe_task(task: int, task_count: int) -> str:
    """Return which files a task of the latest plan reads, for an error message.

    Args:
        task: Index of the task.
        task_count: Number of tasks of its stage. If it is not that of the plan, the stage does not
            read the input, and the result is empty.
    """
    if task_count != len(_latest_tasks):
        return ""
    with pa.ipc.open_stream(_latest_tasks[task]) as stream:
        names = [name for parts in stream for name in parts.column("name").to_pylist()]
    if names[0] == names[-1]:
        return f" while it was reading {names[0]}"
    return f" while it was reading {len(names)} files, {names[0]} to {names[-1]}"


def make_part_table(parts: Sequence[FilePart]) -> pa.Table:
    """Return parts of files as a table with the columns PART_SCHEMA."""
    columns = [[getattr(part, name) for part in parts] for name in PART_SCHEMA.names]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, PART_SCHEMA, strict=True)]
    return pa.table(arrays, schema=PART_SCHEMA)


def _find_task_starts(weights: npt.NDArray[np.int64], task_weight: int) -> list[int]:
    """Return the index of the first part of each task."""
    before = np.cumsum(weights) - weights
    # A part of weight 0 has the same sum as the part after it, not as the one before it.
    tasks = np.maximum.accumulate(np.where(weights > 0, before // max(task_weight, 1), 0))
    return [0, *(np.flatnonzero(np.diff(tasks)) + 1).tolist()]


def _iterate_parts(batches: Batches, tasks: Any) -> Iterator[FilePart]:
    """Yield the parts of a task.

    Args:
        batches: Batches with the index of the task.
        tasks: Broadcast variable with the parts of each task.
    """
    for batch in batches:
        for task in batch.column(0).to_pylist():
            with pa.ipc.open_stream(tasks.value[task]) as stream:
                for parts in stream:
                    columns = (column.to_pylist() for column in parts.columns)
                    yield from map(FilePart._make, zip(*columns, strict=True))


def _compress(parts: pa.Table) -> bytes:
    """Return parts of files as a compressed Arrow stream."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, parts.schema, options=options) as stream:
        stream.write_table(parts, max_chunksize=_ROWS_AT_ONCE)
    return sink.getvalue().to_pybytes()
