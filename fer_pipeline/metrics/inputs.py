"""A classifier's answers to images whose class is known, checked before anything is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A softmax in bfloat16 misses a sum of 1 by up to 0.4 %; logits miss it by far more.
_SUM_TOLERANCE = 0.01

Labels = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def predicted_classes(probabilities: npt.NDArray[Any]) -> Labels:
    """The most probable class of each row, the first of equals: int64 of shape (n,)."""
    return np.argmax(probabilities, axis=1)


def validate_probabilities(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: int | None = None
) -> tuple[Labels, Values]:
    """Labels and probabilities as arrays.

    Args:
        labels: The true classes, whole numbers in 0..classes-1, of shape (n,); n at least 1.
        probabilities: Of shape (n, classes), each row adding up to 1.
        classes: How many there must be; None for any number.

    Raises:
        ValueError: The arrays are empty, do not fit each other or the classes, or hold labels or
            probabilities that are none.
    """
    truth, given = _checked(labels, probabilities, "probabilities", classes)
    if (given < 0).any() or (abs(given.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
        raise ValueError("expected probabilities, got rows that do not add up to 1")
    return truth, given


def validate_logits(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[Labels, Values]:
    """The same with logits, which may be any finite numbers."""
    return _checked(labels, logits, "logits", None)


def _checked(
    labels: npt.ArrayLike, values: npt.ArrayLike, what: str, classes: int | None
) -> tuple[Labels, Values]:
    truth, given = np.asarray(labels), np.asarray(values, np.float64)
    columns = given.shape[1] if classes is None and given.ndim == 2 else classes
    if truth.ndim != 1 or not len(truth) or given.shape != (len(truth), columns):
        raise ValueError(
            f"expected labels of shape (n,), n > 0, and {what} of shape"
            f" (n, {classes or 'classes'}), got {truth.shape} and {given.shape}"
        )
    if truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= given.shape[1]:
        raise ValueError(f"expected labels that are whole numbers in 0..{given.shape[1] - 1}")
    if not np.isfinite(given).all():
        raise ValueError(f"expected {what}, got values that are not finite")
    return truth.astype(np.int64), given
