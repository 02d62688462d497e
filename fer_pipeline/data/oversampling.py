"""Oversampling: repetition of training images to change the sizes of the classes."""

from __future__ import annotations

from collections.abc import Mapping


def compute_oversampling_factors(
    train_counts: Mapping[str, int], *, balance: bool, oversample: Mapping[str, float]
) -> dict[str, float]:
    """Return how many times, on average, each training image of a class is written.

    With a factor of 2.5, for example, all images are written twice, and half of them a third time.

    Args:
        train_counts: Number of training images by class name.
        balance: Whether to enlarge every class to the size of the largest class.
        oversample: Factor by class name; 1 for a class without entry. Ignored if `balance` is true.

    Returns:
        The factor by class name.
    """
    if balance:
        largest = max(train_counts.values(), default=0)
        return {name: largest / max(count, 1) for name, count in train_counts.items()}
    return {name: oversample.get(name, 1) for name in train_counts}
