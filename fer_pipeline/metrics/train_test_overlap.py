"""Metrics with and without the images that also occur in the train split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.classification import Metrics, compute_metrics


@dataclass(frozen=True)
class OverlapReport:
    """Metrics of all images, and of those without an exact copy in the train split.

    Attributes:
        overlap_count: Number of images with an exact copy in the train split.
        deduplicated: Whether the dataset was made with `split.deduplicate`, which removes such
            copies from the train split.
        all_images: Metrics of all images.
        without_overlap: Metrics of the images without a copy; None if every image has one.
    """

    overlap_count: int
    deduplicated: bool
    all_images: Metrics
    without_overlap: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        without_copies = None
        if self.without_overlap:
            accuracies = self.without_overlap.accuracies_to_dict()
            without_copies = {**accuracies, "classes": self.without_overlap.to_dict()["classes"]}
        return {
            "copies": self.overlap_count,
            "deduplicated": self.deduplicated,
            "all": self.all_images.accuracies_to_dict(),
            "without_copies": without_copies,
        }


def exclude_overlap(
    has_copy: npt.NDArray[np.bool_],
    all_images: Metrics,
    labels: npt.NDArray[np.integer[Any]],
    probabilities: npt.NDArray[np.floating[Any]],
    *,
    deduplicated: bool,
) -> OverlapReport:
    """Evaluate again without the images that have an exact copy in the train split.

    Args:
        has_copy: Whether each image has an exact copy in the train split, of shape (n,).
        all_images: Metrics of all images.
        labels: True classes, as for `compute_metrics`.
        probabilities: Predicted probabilities, as for `compute_metrics`.
        deduplicated: Whether the dataset was made with `split.deduplicate`.
    """
    overlap_count = int(has_copy.sum())
    without_overlap = None
    if not overlap_count:
        without_overlap = all_images
    elif not has_copy.all():
        classes: Sequence[str] = [class_metrics.name for class_metrics in all_images.classes]
        without_overlap = compute_metrics(
            labels[~has_copy], probabilities[~has_copy], classes, all_images.intervals.seed
        )
    return OverlapReport(overlap_count, deduplicated, all_images, without_overlap)
