"""Oversampling: repetition of training images to change the sizes of the classes."""

from __future__ import annotations

from collections.abc import Mapping


def compute_oversampling_factors(
    train_counts: Mapping[str, int], *, balance: bool, oversample: Mapping[str, float]
) -> dict[str, float]:
    """Return the mean number of times that the training images of each class are written.

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
