"""Labels, probabilities and logits, validated before anything is measured on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A softmax in bfloat16 misses a sum of 1 by up to 0.4 %; logits miss it by far more.
_SUM_TOLERANCE = 0.01

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def predict_classes(probabilities: npt.NDArray[Any]) -> Labels:
    """Return the most probable class of each row, the first of equal ones: int64 of shape (n,)."""
    return np.argmax(probabilities, axis=1)


def validate_probabilities(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_count: int | None = None
) -> tuple[Labels, Scores]:
    """Return labels and probabilities as arrays, int64 of (n,) and float64 of (n, classes).

    Args:
        labels: True classes, whole numbers in 0..classes-1, of shape (n,); n at least 1.
        probabilities: Probabilities of shape (n, classes), each row adding up to 1.
        class_count: Expected number of classes; None accepts any number.

    Raises:
        ValueError: The arrays are empty, do not match each other or the classes, or contain invalid
            labels or probabilities.
    """
    label_array, probability_array = _validate(labels, probabilities, "probabilities", class_count)
    sums = probability_array.sum(axis=1)
    if (probability_array < 0).any() or (abs(sums - 1) > _SUM_TOLERANCE).any():
        raise ValueError("expected probabilities, got rows that do not add up to 1")
    return label_array, probability_array


def validate_logits(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[Labels, Scores]:
    """Return labels and logits as arrays, int64 of (n,) and float64 of (n, classes).

    Args:
        labels: True classes, whole numbers in 0..classes-1, of shape (n,); n at least 1.
        logits: Finite numbers of shape (n, classes).

    Raises:
        ValueError: The arrays are empty, do not match each other, or contain invalid labels or
            logits.
    """
    return _validate(labels, logits, "logits", None)


def _validate(
    labels: npt.ArrayLike, scores: npt.ArrayLike, scores_name: str, class_count: int | None
) -> tuple[Labels, Scores]:
    label_array, score_array = np.asarray(labels), np.asarray(scores, np.float64)
    columns = score_array.shape[1] if class_count is None and score_array.ndim == 2 else class_count
    is_empty = label_array.ndim != 1 or not len(label_array)
    if is_empty or score_array.shape != (len(label_array), columns):
        raise ValueError(
            f"expected labels of shape (n,), n > 0, and {scores_name} of shape"
            f" (n, {class_count or 'classes'}), got {label_array.shape} and {score_array.shape}"
        )
    highest = score_array.shape[1] - 1
    is_integer = label_array.dtype.kind in "iu"
    if not is_integer or label_array.min() < 0 or label_array.max() > highest:
        raise ValueError(f"expected labels that are whole numbers in 0..{highest}")
    if not np.isfinite(score_array).all():
        raise ValueError(f"expected {scores_name}, got values that are not finite")
    return label_array.astype(np.int64), score_array
