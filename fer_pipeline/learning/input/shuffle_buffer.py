"""A shuffle buffer of NumPy arrays for the rows of an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Images with flattened pixels, of shape (n, size * size)."""

Targets = npt.NDArray[np.int32] | npt.NDArray[np.float32]
"""Class indices of shape (n,), or distributions over the classes of shape (n, classes)."""


def shuffle_with_buffer(
    chunks: Iterator[tuple[Pixels, Targets]],
    capacity: int,
    chunk_rows: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Pixels, Targets]]:
    """Yield all rows in approximately random order, in chunks of several rows.

    The rows fill a buffer. Each time that the buffer is full, randomly selected rows are yielded as
    a chunk, and the next rows replace them.

    Args:
        chunks: Pixels and targets (labels or distributions over the classes) of the rows to
            shuffle, in chunks of any size.
        capacity: Capacity of the buffer, in rows.
        chunk_rows: Number of rows in each yielded chunk. It is limited to half of the capacity,
            because a buffer that is emptied completely would not mix earlier and later rows.
        rng: Random generator of the order.
    """
    chunk_rows = max(1, min(chunk_rows, capacity // 2))
    pixels, targets, free_slots = None, None, np.arange(capacity)
    for new_pixels, new_targets in chunks:
        if pixels is None or targets is None:
            pixels = np.empty((capacity, new_pixels.shape[1]), np.uint8)
            targets = np.empty((capacity, *new_targets.shape[1:]), new_targets.dtype)
        start = 0
        while start < len(new_targets):
            slots = free_slots[: len(new_targets) - start]
            free_slots = free_slots[len(slots) :]
            pixels[slots] = new_pixels[start : start + len(slots)]
            targets[slots] = new_targets[start : start + len(slots)]
            start += len(slots)
            if not len(free_slots):
                free_slots = rng.choice(capacity, chunk_rows, replace=False)
                yield pixels[free_slots], targets[free_slots]
    if pixels is None or targets is None:
        return
    filled_slots = np.setdiff1d(np.arange(capacity), free_slots)
    rng.shuffle(filled_slots)
    for start in range(0, len(filled_slots), chunk_rows):
        slots = filled_slots[start : start + chunk_rows]
        yield pixels[slots], targets[slots]
