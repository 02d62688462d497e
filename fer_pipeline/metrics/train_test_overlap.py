"""Metrics with and without the images that have an exact copy in the train split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.metrics.classification import Metrics, compute_metrics


@dataclass(frozen=True)
class OverlapReport:
    """Metrics of all images, and of the images without an exact copy in the train split.

    Attributes:
        overlap_count: Number of images with an exact copy in the train split.
        deduplicated: Whether the dataset was created with `split.deduplicate`, which removes such
            copies from the train split.
        all_images: Metrics of all images.
        without_overlap: Metrics of the images without such a copy; None if every image has one.
    """

    overlap_count: int
    deduplicated: bool
    all_images: Metrics
    without_overlap: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of the report as a dictionary for JSON.

        The key `copies` is the number of images with an exact copy in the train split.
        """
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


def compute_overlap_report(
    is_in_training: npt.NDArray[np.bool_],
    all_images: Metrics,
    labels: npt.NDArray[np.integer[Any]],
    probabilities: npt.NDArray[np.floating[Any]],
    *,
    deduplicated: bool,
) -> OverlapReport:
    """Compute the metrics again without the images that have an exact copy in the train split.

    Args:
        is_in_training: Whether each image has an exact copy in the train split, bool of shape (n,).
        all_images: Metrics of all images.
        labels: True classes, integers of shape (n,).
        probabilities: Predicted probabilities, of shape (n, classes).
        deduplicated: Whether the dataset was created with `split.deduplicate`; only stored in the
            report.

    Returns:
        The report. Its `without_overlap` is `all_images` if no image has a copy, and None if every
        image has one.
    """
    overlap_count = int(is_in_training.sum())
    without_overlap = None
    if not overlap_count:
        without_overlap = all_images
    elif not is_in_training.all():
        classes: Sequence[str] = [class_metrics.name for class_metrics in all_images.classes]
        without_overlap = compute_metrics(
            labels[~is_in_training],
            probabilities[~is_in_training],
            classes,
            all_images.intervals.seed,
        )
    return OverlapReport(overlap_count, deduplicated, all_images, without_overlap)
