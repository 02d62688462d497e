"""Row groups of Parquet files, read with pyarrow in the order that petastorm gives them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.io.paths import is_local

Columns = dict[str, npt.NDArray[Any]]
"""The columns of a row group, by name: arrays of shape (n,), and for lists of numbers and for bytes
(uint8) of shape (n, length)."""

_WAITING_ROW_GROUPS = 4


@dataclass(frozen=True)
class Shard:
    """A part of the row groups of a split, for one of several workers.

    The row groups are assigned to the shards in turn: shard 0 of 2 has the first, third, fifth, ...

    Attributes:
        index: Index of the shard, in 0..count - 1.
        count: Number of shards.
    """

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file.

    Attributes:
        path: The file.
        footer: Metadata of the whole file.
        index: Index of the row group in the file.
    """

    path: Path
    footer: pq.FileMetaData
    index: int

    @property
    def row_count(self) -> int:
        """The number of rows of this row group."""
        return int(self.footer.row_group(self.index).num_rows)

    def read(self, columns: Sequence[str]) -> Columns:
        """Read some columns.

        Raises:
            UnequalLengthsError: The lists or bytes of a column have different lengths.
            OSError: The file cannot be read.
            pyarrow.ArrowException: The file is damaged.
        """
        with _open(self.path) as file, pq.ParquetFile(file, metadata=self.footer) as parquet:
            # For a few columns, threads within a row group are no faster.
            table = parquet.read_row_group(self.index, list(columns), use_threads=False)
        return {name: _convert_column(name, table.column(name)) for name in columns}


class UnequalLengthsError(ValueError):
    """Lists or bytes of a column that must have the same length have different lengths.

    Attributes:
        column: Name of the column.
    """

    def __init__(self, column: str) -> None:
        """Create the error for a column."""
        super().__init__(f"the entries of the column {column} have different lengths")
        self.column = column


def list_row_groups(paths: Iterable[Path]) -> list[RowGroup]:
    """List the row groups of Parquet files, in stored order. This reads the files' footers.

    Raises:
        OSError: A file cannot be read.
        pyarrow.ArrowException: A file is damaged.
    """
    row_groups = []
    for path in paths:
        with _open(path) as file:
            footer = pq.read_metadata(file)
        row_groups += [RowGroup(path, footer, index) for index in range(footer.num_row_groups)]
    return row_groups


def order_row_groups(count: int, seed: int | None, shard: Shard) -> list[int]:
    """Return the indices of the row groups that a shard reads, in the order in which it does.

    The order is that of petastorm 0.12: `Reader._partition_row_groups` shuffles before it selects
    those of the shard, and `ConcurrentVentilator` shuffles these again.

    Args:
        count: Number of row groups of all shards.
        seed: Seed of the order; None for the stored order.
        shard: The shard.
    """
    order = list(range(count))
    if shard.count > 1:
        if seed is not None:
            random.Random(seed).shuffle(order)
        order = [index for index in order if index % shard.count == shard.index]
    if seed is not None:
        np.random.RandomState(seed).shuffle(order)
    return order


def read_row_groups(
    row_groups: Iterable[RowGroup], columns: Sequence[str], thread_count: int
) -> Iterator[Columns]:
    """Yield some columns of row groups, in their order whatever the number of threads.

    Args:
        row_groups: Row groups to read.
        columns: Names of the columns.
        thread_count: Number of row groups that are read at the same time. A few more may wait until
            they are taken.

    Raises:
        UnequalLengthsError: The lists or bytes of a column have different lengths.
        OSError: A file cannot be read.
        pyarrow.ArrowException: A file is damaged.
    """
    waiting: deque[Future[Columns]] = deque()
    pool = ThreadPoolExecutor(thread_count, "row groups")
    try:
        for row_group in row_groups:
            waiting.append(pool.submit(row_group.read, columns))
            if len(waiting) >= thread_count + _WAITING_ROW_GROUPS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _open(path: Path) -> Any:
    """Open a file for reading with pyarrow."""
    return pa.OSFile(str(path)) if is_local(path) else path.open("rb")


def _convert_column(name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Convert a column to NumPy, without a copy if possible.

    Args:
        name: Name of the column, for the error.
        column: Numbers, strings, bytes, or lists of numbers.

    Returns:
        An array as described for `Columns`.

    Raises:
        UnequalLengthsError: An entry is null, or the entries have different lengths.
    """
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    is_binary = pa.types.is_binary(array.type)
    if not is_binary and not pa.types.is_list(array.type):
        values = array.to_numpy(zero_copy_only=False)
        return values.astype(np.str_) if pa.types.is_string(array.type) else values
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
    lengths = np.unique(np.diff(offsets))
    if array.null_count or len(lengths) != 1:
        raise UnequalLengthsError(name)
    size = len(array) * int(lengths[0])
    flat = (
        np.frombuffer(array.buffers()[2], np.uint8, size, int(offsets[0]))
        if is_binary
        else array.flatten().to_numpy(zero_copy_only=False)
    )
    return flat.reshape(len(array), -1)
