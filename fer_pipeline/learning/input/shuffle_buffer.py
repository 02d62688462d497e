"""The order of rows within an epoch: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32] | npt.NDArray[np.float32]


def shuffle_with_buffer(
    chunks: Iterator[tuple[Pixels, Labels]],
    capacity: int,
    step: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Pixels, Labels]]:
    """Rows mixed in a buffer that is always full: what goes out makes room for what comes in.

    Args:
        chunks: Flat pixels, and labels or distributions.
        capacity: How many rows the buffer holds.
        step: How many go out at once; at most half of the buffer, or nothing would be mixed.
        rng: Chooses them.
    """
    step = max(1, min(step, capacity // 2))
    pixels, labels, free = None, None, np.arange(capacity)
    for new_pixels, new_labels in chunks:
        if pixels is None or labels is None:
            pixels = np.empty((capacity, new_pixels.shape[1]), np.uint8)
            labels = np.empty((capacity, *new_labels.shape[1:]), new_labels.dtype)
        taken = 0
        while taken < len(new_labels):
            places = free[: len(new_labels) - taken]
            free = free[len(places) :]
            pixels[places] = new_pixels[taken : taken + len(places)]
            labels[places] = new_labels[taken : taken + len(places)]
            taken += len(places)
            if not len(free):
                free = rng.choice(capacity, step, replace=False)
                yield pixels[free], labels[free]
    if pixels is None or labels is None:
        return
    left = np.setdiff1d(np.arange(capacity), free)
    rng.shuffle(left)
    for start in range(0, len(left), step):
        part = left[start : start + step]
        yield pixels[part], labels[part]
