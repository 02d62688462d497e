"""Whether two classifiers differ by more than chance, seen on the same images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05
"""The p under which a difference is called significant."""


@dataclass(frozen=True)
class PairwiseTest:
    """Two classifiers.

    Attributes:
        first: The position of the one.
        second: The position of the other, behind it.
        only_first: How many images only the first gets right.
        only_second: How many only the second does.
        p: Of McNemar's test, in 0..1: how likely a difference at least so large is where there is
            none.
        adjusted: The same after Holm's correction over all pairs.
    """

    first: int
    second: int
    only_first: int
    only_second: int
    p: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p is under `LEVEL`."""
        return self.adjusted < ALPHA


def compare_classifiers(correct: npt.NDArray[np.bool_]) -> tuple[PairwiseTest, ...]:
    """Compares each classifier with each other one.

    Args:
        correct: Whether a classifier (row) gets an image (column) right: bool of shape
            (classifiers, images), at least one image.

    Returns:
        The pairs (0, 1), (0, 2), ..., (1, 2), ...

    Raises:
        ValueError: The array is none of that kind.
    """
    if correct.ndim != 2 or correct.dtype != np.bool_ or not correct.shape[1]:
        raise ValueError(
            "expected booleans of shape (classifiers, images), at least one image, got"
            f" {correct.dtype} of shape {correct.shape}"
        )
    counts = correct.astype(np.int64)
    # Right in the row's classifier and wrong in the column's.
    only = counts @ (1 - counts).T
    pairs = list(itertools.combinations(range(len(correct)), 2))
    firsts = np.array([only[first, second] for first, second in pairs], np.int64)
    seconds = np.array([only[second, first] for first, second in pairs], np.int64)
    chances = compute_mcnemar_p_values(firsts, seconds)
    found = zip(pairs, firsts, seconds, chances, apply_holm_correction(chances), strict=True)
    return tuple(
        PairwiseTest(first, second, int(one), int(other), float(p), float(adjusted))
        for (first, second), one, other, p, adjusted in found
    )


def compute_mcnemar_p_values(
    only_first: npt.ArrayLike, only_second: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """The exact test of McNemar, two-sided.

    Where two classifiers are equally good, each image that one alone gets right is as likely to be
    the first's as the second's: a binomial distribution with the probability 1/2. Source: McNemar,
    Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12, 1947, https://doi.org/10.1007/BF02295996, but with that distribution itself
    in place of its approximation by chi-squared.

    Args:
        only_first: How many images only the first gets right, whole numbers from 0, of any shape.
        only_second: How many only the second does, of the same shape.

    Returns:
        p in 0..1, float64 of that shape; 1 where there is no such image.
    """
    one, other = np.asarray(only_first), np.asarray(only_second)
    # The distribution is symmetric: both tails are equal, and in its middle they overlap. The same
    # as scipy.stats.binomtest, which takes one pair at a time.
    tail = stats.binom.cdf(np.minimum(one, other), one + other, 0.5)
    return np.minimum(1.0, 2 * tail)


def apply_holm_correction(chances: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Corrects the p of several tests, so that one false alarm among them all stays unlikely.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6, 1979, https://www.jstor.org/stable/4615733: the least p counts as often as there
    are tests, the next one time less, and none falls below one before it.

    Args:
        chances: Of each test, in 0..1; perhaps of none.

    Returns:
        The corrected ones in the same order, float64, none less than it was and none above 1.
    """
    given = np.asarray(chances, np.float64)
    order = np.argsort(given, kind="stable")
    corrected = np.empty_like(given)
    scaled = given[order] * np.arange(len(given), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return corrected
