"""Conversion of NumPy arrays to Arrow columns without copying."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ARROW_TYPES = {
    "string": pa.string(),
    "bigint": pa.int64(),
    "int": pa.int32(),
    "float": pa.float32(),
    "double": pa.float64(),
    "binary": pa.binary(),
    "array<float>": pa.list_(pa.float32()),
}
"""Arrow type of each Spark type that the package stores."""


def build_binary_column(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """Convert the rows of an array to a binary column.

    Args:
        rows: Bytes of each row, uint8 of shape (n, width).

    Returns:
        An Arrow column of n binary values of `width` bytes each.

    Raises:
        ValueError: The rows have 2 GiB or more in total, too many for Arrow's 32-bit offsets.
    """
    row_count, width = rows.shape
    if row_count * width >= 2**31:
        raise ValueError(
            f"{row_count} images of {width} bytes are too many for one column of Arrow"
        )
    offsets = pa.py_buffer(np.arange(row_count + 1, dtype=np.int32) * width)
    content = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(), row_count, [None, offsets, content])


def build_list_column(rows: npt.NDArray[np.float32]) -> pa.Array:
    """Convert the rows of an array to a column of lists.

    Args:
        rows: Numbers of each row, float32 of shape (n, length).

    Returns:
        An Arrow column of n lists of `length` numbers each.
    """
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel()))


def build_arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """Convert a schema from Spark's types to Arrow's types.

    Args:
        columns: Spark type of each column, such as "bigint", by column name. Only the types that
            the package stores (the keys of ARROW_TYPES) are accepted.
    """
    return pa.schema([(name, ARROW_TYPES[spark_type]) for name, spark_type in columns.items()])
