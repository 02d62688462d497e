"""Bootstrap confidence intervals of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE_LEVEL = 0.95
"""Fraction of the intervals that should contain the accuracy on all images of the same kind."""

RESAMPLE_COUNT = 10_000
"""Number of bootstrap samples."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a fraction in 0..1.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Confidence intervals of an evaluation.

    Attributes:
        accuracy: Interval of the overall accuracy.
        mean_class_accuracy: Interval of the mean accuracy of the classes that have images.
        classes: Interval of each class's accuracy, in the order of the labels; None for a class
            without images.
        seed: Seed of the bootstrap samples.
    """

    accuracy: Interval
    mean_class_accuracy: Interval
    classes: tuple[Interval | None, ...]
    seed: int


def compute_bootstrap_intervals(
    actual: Sequence[int], correct: Sequence[int], seed: int
) -> Intervals:
    """Return percentile bootstrap intervals of the accuracies.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Each of the `RESAMPLE_COUNT` samples takes n of the n images with replacement; an interval
    reaches from the 2.5th to the 97.5th percentile of the samples' accuracies. Only the class of an
    image and whether it is recognised matter, so a sample of n images is exactly one multinomial
    sample of n over these 2 x classes cells, and needs no loop over images.

    A class with few images may be missing from a sample; that sample then does not count for the
    class. If all images of a class are recognised, or none, the interval of the class has no width,
    however few images there are.

    Args:
        actual: Number of images of each class, at least one in total.
        correct: Number of recognised images of each class.
        seed: Seed of the samples.

    Raises:
        ValueError: There is no image, or a class has more recognised images than images.
    """
    actual_counts, correct_counts = np.asarray(actual), np.asarray(correct)
    total = int(actual_counts.sum())
    if not total or (correct_counts < 0).any() or (correct_counts > actual_counts).any():
        raise ValueError(
            f"expected 0 <= correct <= actual, some above 0, got {correct} of {actual}"
        )
    cells = np.concatenate([correct_counts, actual_counts - correct_counts])
    samples = np.random.default_rng(seed).multinomial(total, cells / total, RESAMPLE_COUNT)
    sampled_correct, sampled_wrong = np.split(samples, 2, axis=1)
    sampled_actual = sampled_correct + sampled_wrong
    accuracies = np.full(sampled_actual.shape, np.nan)
    np.divide(sampled_correct, sampled_actual, out=accuracies, where=sampled_actual > 0)
    return Intervals(
        accuracy=_percentile_interval(sampled_correct.sum(axis=1) / total),
        mean_class_accuracy=_percentile_interval(np.nanmean(accuracies, axis=1)),
        classes=tuple(
            _percentile_interval(accuracies[:, label]) if count else None
            for label, count in enumerate(actual_counts)
        ),
        seed=seed,
    )


def _percentile_interval(accuracies: npt.NDArray[Any]) -> Interval:
    percentiles = [50 * (1 - CONFIDENCE_LEVEL), 50 * (1 + CONFIDENCE_LEVEL)]
    low, high = np.nanpercentile(accuracies, percentiles)
    return Interval(float(low), float(high))
