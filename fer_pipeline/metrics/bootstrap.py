"""How far an accuracy would move on other images of the same kind: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE_LEVEL = 0.95
"""How often an interval is meant to hold the accuracy on all images of the kind."""
RESAMPLE_COUNT = 10_000


@dataclass(frozen=True)
class Interval:
    """Its ends, fractions in 0..1."""

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The intervals of an evaluation.

    Attributes:
        accuracy: Of the part of all images that is recognised.
        mean_class_accuracy: Of the mean over the classes that have images.
        classes: Of each class's accuracy, in the order of the labels; None where it has no image.
        seed: With which they were drawn.
    """

    accuracy: Interval
    mean_class_accuracy: Interval
    classes: tuple[Interval | None, ...]
    seed: int


def compute_bootstrap_intervals(
    actual: Sequence[int], right: Sequence[int], seed: int
) -> Intervals:
    """The percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 13.3.

    As many images as there are, n, are drawn from them with replacement, `RESAMPLES` times; an
    interval reaches from the 2.5th to the 97.5th percentile of what these samples give. An image
    counts by its class and by whether it is recognised and by nothing else, so a sample of n images
    is one multinomial draw of n over these 2 x classes cells: exactly, and without a loop.

    A class of few images may be missing from a sample, which then says nothing of it. Where all
    images of a class are recognised, or none, no sample can say otherwise: the interval has no
    width, however few they are.

    Args:
        actual: The images of each class, at least one in all.
        right: How many of them are recognised.
        seed: Of the draws.
    """
    images, hits = np.asarray(actual), np.asarray(right)
    count = int(images.sum())
    if not count or (hits < 0).any() or (hits > images).any():
        raise ValueError(f"expected 0 <= right <= actual, some above 0, got {right} of {actual}")
    cells = np.concatenate([hits, images - hits])
    drawn = np.random.default_rng(seed).multinomial(count, cells / count, RESAMPLE_COUNT)
    drawn_hits, drawn_misses = np.split(drawn, 2, axis=1)
    totals = drawn_hits + drawn_misses
    parts = np.full(totals.shape, np.nan)
    np.divide(drawn_hits, totals, out=parts, where=totals > 0)
    return Intervals(
        accuracy=_interval(drawn_hits.sum(axis=1) / count),
        mean_class_accuracy=_interval(np.nanmean(parts, axis=1)),
        classes=tuple(
            _interval(parts[:, label]) if images[label] else None for label in range(len(images))
        ),
        seed=seed,
    )


def _interval(values: npt.NDArray[Any]) -> Interval:
    low, high = np.nanpercentile(values, [50 * (1 - CONFIDENCE_LEVEL), 50 * (1 + CONFIDENCE_LEVEL)])
    return Interval(float(low), float(high))
