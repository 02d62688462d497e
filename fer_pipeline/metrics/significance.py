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
"""Significance level. A difference is significant if its corrected p-value is below this level."""


@dataclass(frozen=True)
class PairwiseTest:
    """Result of the test of the difference between two classifiers.

    Attributes:
        first: Index of the first classifier.
        second: Index of the second classifier, greater than `first`.
        only_first: Number of images that only the first classifier classifies correctly.
        only_second: Number of images that only the second classifier classifies correctly.
        p_value: p-value of McNemar's test, in [0, 1]: the probability that two equally good
            classifiers differ by this much or more.
        adjusted_p_value: p-value after Holm's correction for all pairs, in [0, 1].
    """

    first: int
    second: int
    only_first: int
    only_second: int
    p_value: float
    adjusted_p_value: float

    @property
    def is_significant(self) -> bool:
        """Return whether the p-value after Holm's correction is below the level `ALPHA`."""
        return self.adjusted_p_value < ALPHA


def compare_classifiers(is_correct: npt.NDArray[np.bool_]) -> tuple[PairwiseTest, ...]:
    """Test each pair of classifiers for a significant difference in accuracy.

    The test is McNemar's exact test, with Holm's correction for the number of pairs.

    Args:
        is_correct: Whether a classifier (row) classifies an image (column) correctly, bool of shape
            (classifiers, images), with one or more images.

    Returns:
        The tests of the pairs (0, 1), (0, 2), ..., (1, 2), ...

    Raises:
        ValueError: The array is not boolean, is not two-dimensional, or has no images.
    """
    if is_correct.ndim != 2 or is_correct.dtype != np.bool_ or not is_correct.shape[1]:
        raise ValueError(
            "expected booleans of shape (classifiers, images), at least one image, got"
            f" {is_correct.dtype} of shape {is_correct.shape}"
        )
    correct = is_correct.astype(np.int64)
    # Entry (i, j) counts the images that classifier i gets right and classifier j gets wrong.
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
    """Return the p-values of McNemar's exact two-sided test.

    The test uses only the images that exactly one of the two classifiers classifies correctly.
    Under the null hypothesis, the first classifier is the correct one with probability 1/2.
    Therefore `only_first` follows a binomial distribution.

    Source: McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12, 1947, https://doi.org/10.1007/BF02295996. He uses the chi-squared
    approximation instead of the exact distribution.

    Args:
        only_first: Number of images that only the first classifier classifies correctly, an array
            of any shape.
        only_second: Number of images that only the second classifier classifies correctly, an array
            of the same shape.

    Returns:
        The p-values in [0, 1], float64 of the same shape; 1 if both numbers are 0.
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
    """Correct the p-values of several tests with Holm's method.

    The correction limits the family-wise error rate: the probability that any of the tests gives a
    false positive. The smallest of n p-values is multiplied by n, the next by n - 1, and so on. If
    a product is smaller than the previous corrected p-value, that p-value is used instead. Products
    above 1 become 1. Source: Holm, A simple sequentially rejective multiple test procedure,
    Scandinavian Journal of Statistics 6, 1979, https://www.jstor.org/stable/4615733.

    Args:
        p_values: p-values in [0, 1], of shape (n,), n >= 0.

    Returns:
        The corrected p-values in the same order, float64 of shape (n,), in [0, 1].
    """
    raw = np.asarray(p_values, np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * np.arange(len(raw), 0, -1)
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected
