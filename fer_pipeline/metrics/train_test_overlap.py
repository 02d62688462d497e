"""What of an evaluation is recognising again: with and without images that were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.classification import Metrics, compute_metrics


@dataclass(frozen=True)
class OverlapReport:
    """An evaluation, and what it is without the images that have an exact copy in training.

    Attributes:
        count: How many images have one.
        prevented: Whether the dataset was made with `split.deduplicate`, which takes such copies
            out of training.
        every: Of all images.
        rest: Of those without a copy; None where there are none.
    """

    count: int
    prevented: bool
    every: Metrics
    rest: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "copies": self.count,
            "deduplicated": self.prevented,
            "all": self.every.accuracies(),
            "without_copies": self.rest
            and {**self.rest.accuracies(), "classes": self.rest.to_dict()["classes"]},
        }


def exclude_overlap(
    copied: npt.NDArray[np.bool_],
    every: Metrics,
    labels: npt.NDArray[np.integer[Any]],
    probabilities: npt.NDArray[np.floating[Any]],
    classes: Sequence[str],
    *,
    prevented: bool,
) -> OverlapReport:
    """Leaves the copies out of an evaluation.

    Args:
        copied: Which images have an exact copy in training, of shape (n,).
        every: The evaluation of all images.
        labels: As in `metrics.measure`.
        probabilities: As there.
        classes: As there.
        prevented: Whether the dataset was made with `split.deduplicate`.
    """
    count, kept = int(copied.sum()), ~copied
    rest = every if not count else None
    if count and kept.any():
        rest = compute_metrics(labels[kept], probabilities[kept], classes, every.intervals.seed)
    return OverlapReport(count, prevented, every, rest)
