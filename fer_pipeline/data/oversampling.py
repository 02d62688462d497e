"""Oversampling: how many times the training images of each class are written."""

from __future__ import annotations

from collections.abc import Mapping


def compute_oversampling_factors(
    train_counts: Mapping[str, int], *, balance: bool, oversample: Mapping[str, float]
) -> dict[str, float]:
    """Return how many times the training images of each class are written, on average.

    Args:
        train_counts: Number of training images by class.
        balance: Whether every class is brought to the size of the largest.
        oversample: Factors by class otherwise; 1 for a class that is not named.
    """
    if balance:
        largest = max(train_counts.values(), default=0)
        return {name: largest / max(count, 1) for name, count in train_counts.items()}
    return {name: oversample.get(name, 1) for name in train_counts}
