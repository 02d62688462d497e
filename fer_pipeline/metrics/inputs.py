"""Validation of labels, probabilities and logits, and the rule for the predicted class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# The sum of a softmax in bfloat16 differs from 1 by up to 0.4 %; that of logits by far more.
_SUM_TOLERANCE = 0.01

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def predict_classes(probabilities: npt.NDArray[Any]) -> Labels:
    """Return the most probable class of each row, int64 of shape (n,).

    A tie is resolved in favour of the lowest label.

    Args:
        probabilities: Probabilities of shape (n, classes).
    """
    return np.argmax(probabilities, axis=1)


def validate_probabilities(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_count: int | None = None
) -> tuple[Labels, Scores]:
    """Check labels and probabilities, and convert them to arrays.

    Args:
        labels: True classes, integers in [0, classes - 1], of shape (n,), n >= 1.
        probabilities: Probabilities of shape (n, classes); each row sums to 1.
        class_count: Expected number of classes; None accepts any number.

    Returns:
        The labels as int64 of shape (n,), and the probabilities as float64 of shape (n, classes).

    Raises:
        ValueError: The arrays are empty, their shapes do not match each other or `class_count`, or
            they contain invalid labels or probabilities.
    """
    label_array, probability_array = _validate_labels_and_scores(
        labels, probabilities, "probabilities", class_count
    )
    sums = probability_array.sum(axis=1)
    if (probability_array < 0).any() or (abs(sums - 1) > _SUM_TOLERANCE).any():
        raise ValueError("expected probabilities, got rows that do not add up to 1")
    return label_array, probability_array


def validate_logits(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[Labels, Scores]:
    """Check labels and logits, and convert them to arrays.

    Args:
        labels: True classes, integers in [0, classes - 1], of shape (n,), n >= 1.
        logits: Finite logits of shape (n, classes).

    Returns:
        The labels as int64 of shape (n,), and the logits as float64 of shape (n, classes).

    Raises:
        ValueError: The arrays are empty, their shapes do not match, or they contain invalid labels
            or logits.
    """
    return _validate_labels_and_scores(labels, logits, "logits", None)


def _validate_labels_and_scores(
    labels: npt.ArrayLike, scores: npt.ArrayLike, scores_name: str, class_count: int | None
) -> tuple[Labels, Scores]:
    """Check labels and scores, and convert them to arrays.

    The labels must be integers in the range of the classes, the scores must be finite, and the
    shapes must match.

    Args:
        labels: True classes of shape (n,).
        scores: Probabilities or logits of shape (n, classes).
        scores_name: Plural noun for the scores in error messages.
        class_count: Expected number of classes; None accepts any number.

    Returns:
        The labels as int64 and the scores as float64.

    Raises:
        ValueError: The arrays are empty, a shape is wrong, or a label or a score is invalid.
    """
    label_array, score_array = np.asarray(labels), np.asarray(scores, np.float64)
    has_columns = score_array.ndim == 2 and class_count in (None, score_array.shape[1])
    is_empty = label_array.ndim != 1 or not len(label_array)
    if is_empty or not has_columns or len(score_array) != len(label_array):
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
