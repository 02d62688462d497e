"""Significance tests of the difference between classifiers on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05
"""Significance level: a difference is significant if its corrected p-value is below it."""


@dataclass(frozen=True)
class PairwiseTest:
    """Test of the difference between two classifiers.

    Attributes:
        first: Position of the first classifier.
        second: Position of the second classifier, greater than `first`.
        only_first: Number of images that only the first classifier recognises.
        only_second: Number of images that only the second classifier recognises.
        p_value: p-value of McNemar's test, in 0..1: the probability of a difference at least this
            large between equally good classifiers.
        adjusted_p_value: p-value after Holm's correction over all pairs.
    """

    first: int
    second: int
    only_first: int
    only_second: int
    p_value: float
    adjusted_p_value: float

    @property
    def is_significant(self) -> bool:
        """Return whether the corrected p-value is below `ALPHA`."""
        return self.adjusted_p_value < ALPHA


def compare_classifiers(is_correct: npt.NDArray[np.bool_]) -> tuple[PairwiseTest, ...]:
    """Test the difference between each pair of classifiers.

    Args:
        is_correct: Whether a classifier (row) recognises an image (column): bool of shape
            (classifiers, images), at least one image.

    Returns:
        The pairs (0, 1), (0, 2), ..., (1, 2), ...

    Raises:
        ValueError: The array has another dtype or shape.
    """
    if is_correct.ndim != 2 or is_correct.dtype != np.bool_ or not is_correct.shape[1]:
        raise ValueError(
            "expected booleans of shape (classifiers, images), at least one image, got"
            f" {is_correct.dtype} of shape {is_correct.shape}"
        )
    correct = is_correct.astype(np.int64)
    # Images that the row's classifier recognises and the column's does not.
    only_row = correct @ (1 - correct).T
    pairs = list(itertools.combinations(range(len(is_correct)), 2))
    only_first = np.array([only_row[first, second] for first, second in pairs], np.int64)
    only_second = np.array([only_row[second, first] for first, second in pairs], np.int64)
    p_values = compute_mcnemar_p_values(only_first, only_second)
    adjusted_p_values = apply_holm_correction(p_values)
    return tuple(
        PairwiseTest(
            first=first,
            second=second,
            only_first=int(only_first[index]),
            only_second=int(only_second[index]),
            p_value=float(p_values[index]),
            adjusted_p_value=float(adjusted_p_values[index]),
        )
        for index, (first, second) in enumerate(pairs)
    )


def compute_mcnemar_p_values(
    only_first: npt.ArrayLike, only_second: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the p-values of McNemar's exact test, two-sided.

    If two classifiers are equally good, an image that only one of them recognises is equally likely
    to be recognised by either: a binomial distribution with probability 1/2. Source: McNemar, Note
    on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947, https://doi.org/10.1007/BF02295996, here with the exact distribution
    instead of its chi-squared approximation.

    Args:
        only_first: Number of images that only the first classifier recognises, of any shape.
        only_second: Number of images that only the second classifier recognises, of that shape.

    Returns:
        p-values in 0..1, float64 of the same shape; 1 if there is no such image.
    """
    only_first, only_second = np.asarray(only_first), np.asarray(only_second)
    # The distribution is symmetric, so both tails are equal; in the middle they overlap. This
    # equals scipy.stats.binomtest, which takes one pair at a time.
    smaller = np.minimum(only_first, only_second)
    tail = stats.binom.cdf(smaller, only_first + only_second, 0.5)
    return np.minimum(1.0, 2 * tail)


def apply_holm_correction(
    p_values: Sequence[float] | npt.NDArray[Any],
) -> npt.NDArray[np.float64]:
    """Correct the p-values of several tests, to limit the probability of any false positive.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6, 1979, https://www.jstor.org/stable/4615733. The smallest p-value is multiplied by
    the number of tests, the next one by one less, and so on; none may fall below its predecessor.

    Args:
        p_values: p-values in 0..1, possibly none.

    Returns:
        The corrected p-values in the same order, float64, at least the given ones and at most 1.
    """
    raw = np.asarray(p_values, np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * np.arange(len(raw), 0, -1)
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected
