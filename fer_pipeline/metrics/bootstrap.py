"""Bootstrap confidence intervals of accuracies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE_LEVEL = 0.95
"""Probability with which an interval should contain the accuracy on unlimited similar images."""

RESAMPLE_COUNT = 10_000
"""Number of bootstrap samples."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a fraction.

    Attributes:
        low: Lower end, in [0, 1].
        high: Upper end, in [0, 1].
    """

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Confidence intervals of the accuracies of an evaluation.

    Attributes:
        accuracy: Interval of the overall accuracy.
        mean_class_accuracy: Interval of the mean of the per-class accuracies, over the classes that
            have images.
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
    """Compute percentile bootstrap intervals of the overall, mean class and per-class accuracies.

    Each of the `RESAMPLE_COUNT` bootstrap samples consists of n images, sampled with replacement
    from the n evaluated images. An interval extends from the 2.5th to the 97.5th percentile of the
    samples' accuracies. A class with few images may be missing from a sample; this sample is then
    ignored for the interval of that class. If the accuracy of a class is 0 or 1, its interval has
    zero width.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        actual: Number of images of each class. The total must be 1 or more.
        correct: Number of correctly classified images of each class.
        seed: Seed of the bootstrap samples.

    Returns:
        The intervals; None for a class without images.

    Raises:
        ValueError: There are no images, or the number of correctly classified images of a class is
            negative or exceeds the number of images of the class.
    """
    actual_counts, correct_counts = np.asarray(actual), np.asarray(correct)
    image_count = int(actual_counts.sum())
    if not image_count or (correct_counts < 0).any() or (correct_counts > actual_counts).any():
        raise ValueError(
            f"expected 0 <= correct <= actual, some above 0, got {correct} of {actual}"
        )
    # An accuracy depends only on the class of each image and on whether it is correctly classified.
    # Therefore each bootstrap sample is one multinomial sample over 2 * classes cells.
    cells = np.concatenate([correct_counts, actual_counts - correct_counts])
    samples = np.random.default_rng(seed).multinomial(
        image_count, cells / image_count, RESAMPLE_COUNT
    )
    sampled_correct, sampled_wrong = np.split(samples, 2, axis=1)
    sampled_actual = sampled_correct + sampled_wrong
    accuracies = np.full(sampled_actual.shape, np.nan)
    np.divide(sampled_correct, sampled_actual, out=accuracies, where=sampled_actual > 0)
    return Intervals(
        accuracy=_compute_percentile_interval(sampled_correct.sum(axis=1) / image_count),
        mean_class_accuracy=_compute_percentile_interval(np.nanmean(accuracies, axis=1)),
        classes=tuple(
            _compute_percentile_interval(accuracies[:, label]) if count else None
            for label, count in enumerate(actual_counts)
        ),
        seed=seed,
    )


def _compute_percentile_interval(accuracies: npt.NDArray[Any]) -> Interval:
    """Return the central interval that contains a fraction `CONFIDENCE_LEVEL` of the accuracies.

    Args:
        accuracies: Accuracies of the bootstrap samples, of shape (samples,). NaN is ignored; it is
            the accuracy of a class that is missing from a sample.
    """
    percentiles = [50 * (1 - CONFIDENCE_LEVEL), 50 * (1 + CONFIDENCE_LEVEL)]
    low, high = np.nanpercentile(accuracies, percentiles)
    return Interval(float(low), float(high))
