"""Reading of Parquet row groups with petastorm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.io.paths import get_filesystem, is_local
from fer_pipeline.learning.input.petastorm_compat import make_batch_reader
from fer_pipeline.learning.input.row_groups import Columns, Shard, UnequalLengthsError

_QUEUED_ROW_GROUPS = 16

UNSUPPORTED_CHARACTERS = "#?"
"""Characters that no path may contain, because petastorm parses it as a URL."""


def read_row_groups(
    paths: Sequence[Path],
    columns: Sequence[str],
    *,
    seed: int | None,
    shard: Shard,
    thread_count: int,
) -> Iterator[Columns]:
    """Yield some columns of the row groups of Parquet files.

    Args:
        paths: The files.
        columns: Names of the columns.
        seed: Seed of the order of the row groups; None for the stored order.
        shard: Part of the row groups to read. There must be a row group for each shard.
        thread_count: Number of row groups that are read at the same time. The order is that of the
            seed only if it is 1.

    Raises:
        UnequalLengthsError: The bytes of a column have different lengths.
        Exception: A file cannot be read. petastorm raises the exceptions of its threads, which can
            be of any class.
    """
    on_local_disk = is_local(paths[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = make_batch_reader(
            [f"file://{path}" if on_local_disk else str(path) for path in paths],
            schema_fields=[f"^{name}$" for name in columns],
            workers_count=thread_count,
            results_queue_size=_QUEUED_ROW_GROUPS,
            shuffle_row_groups=seed is not None,
            seed=seed,
            num_epochs=1,
            filesystem=None if on_local_disk else get_filesystem(paths[0]),
            cur_shard=shard.index if shard.count > 1 else None,
            shard_count=shard.count if shard.count > 1 else None,
        )
    try:
        for row_group in reader:
            yield {name: _convert_column(name, getattr(row_group, name)) for name in columns}
    finally:
        reader.stop()
        reader.join()


def _convert_column(name: str, column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert a column of bytes to a matrix of uint8; petastorm does so with lists.

    Args:
        name: Name of the column, for the error.
        column: The column as petastorm returns it.

    Raises:
        UnequalLengthsError: An entry is null, or the entries have different lengths.
    """
    if column.dtype != object:
        return column
    lengths = {None if entry is None else len(entry) for entry in column}
    if len(lengths) > 1 or None in lengths:
        raise UnequalLengthsError(name)
    return np.frombuffer(b"".join(column), np.uint8).reshape(len(column), -1)
