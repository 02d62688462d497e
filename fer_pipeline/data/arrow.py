"""Between Arrow's columns and NumPy's arrays, without copies."""

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
"""Arrow's type for each of Spark's that is in use."""


def binary_column(
    rows: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """A binary column of equally long values.

    Args:
        rows: uint8 of shape (n, width).
        valid: Which of them are not null; None for all.
    """
    count, width = rows.shape
    if count * width >= 2**31:
        raise ValueError(f"{count} images of {width} bytes are too many for one column of Arrow")
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * width)
    mask = None
    if valid is not None and not valid.all():
        mask = pa.py_buffer(np.packbits(valid, bitorder="little"))
    values = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(), count, [mask, offsets, values])


def arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """Arrow's schema for columns that are given by name and Spark's type."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])
