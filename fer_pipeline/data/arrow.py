"""Conversion of NumPy arrays to Arrow columns without copies."""

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
    "binary": pa.binary(),
    "array<float>": pa.list_(pa.float32()),
}
"""Arrow's type for each of Spark's types that the package stores."""


def build_binary_column(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """Return a binary column of equally long values.

    Args:
        rows: uint8 of shape (n, width).

    Raises:
        ValueError: The column would exceed the 2 GiB that Arrow's offsets can address.
    """
    count, width = rows.shape
    if count * width >= 2**31:
        raise ValueError(f"{count} images of {width} bytes are too many for one column of Arrow")
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * width)
    pixels = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(), count, [None, offsets, pixels])


def build_list_column(rows: npt.NDArray[np.float32]) -> pa.Array:
    """Return a column of equally long lists, from an array of shape (n, length)."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel()))


def build_arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """Return the Arrow schema of columns that are named with Spark's types."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])
