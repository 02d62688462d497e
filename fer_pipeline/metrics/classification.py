"""What a classifier is worth: all numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from fer_pipeline.metrics.bootstrap import (
    CONFIDENCE_LEVEL,
    RESAMPLE_COUNT,
    Interval,
    Intervals,
    compute_bootstrap_intervals,
)
from fer_pipeline.metrics.calibration import (
    Calibration,
    CoveragePoint,
    compute_accuracy_coverage,
    measure_calibration,
    select_coverage_points,
)
from fer_pipeline.metrics.inputs import predicted_classes, validate_probabilities


@dataclass(frozen=True)
class ClassScores:
    """Fractions in 0..1; None where there is nothing to measure.

    Attributes:
        accuracy: Of a class, the part of its images that is recognised: its recall.
        precision: Of the images that are taken for the class, the part that is of it; 0 where
            there are none.
        f1: The harmonic mean of the two.
    """

    accuracy: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassMetrics:
    """One class.

    Attributes:
        name: The emotion.
        actual: Its images; scikit-learn's support.
        predicted: The images that are taken for it.
        true_positives: Those that are both.
        scores: All None where the class has no image.
    """

    name: str
    actual: int
    predicted: int
    true_positives: int
    scores: ClassScores


@dataclass(frozen=True)
class ConfusedPair:
    """A class that is taken for another one.

    Attributes:
        true: The class.
        predicted: What it is taken for.
        images: How many of its images are.
        share: The part of its images that these are, in 0..1.
    """

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Metrics:
    """All numbers of an evaluation.

    A class without an image has no scores and enters no average; taking an image for it is still a
    mistake.

    Attributes:
        classes: One by one, in the order of the labels.
        macro: The plain mean of the classes' scores; its accuracy is the mean per-class accuracy.
        weighted: Their mean weighted by `actual`; its accuracy is the overall accuracy.
        top2_accuracy: The part of the images whose class is among the two most probable ones.
        loss: The mean cross-entropy, in nats.
        confusion: Images by true class (rows) and predicted class (columns).
        intervals: Of the accuracies.
        calibration: How far confidence and accuracy agree.
        coverage: What the most confident parts of the images give.
    """

    classes: tuple[ClassMetrics, ...]
    macro: ClassScores
    weighted: ClassScores
    top2_accuracy: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    intervals: Intervals
    calibration: Calibration
    coverage: tuple[CoveragePoint, ...]

    @property
    def rows(self) -> int:
        """How many images were evaluated."""
        return sum(one.actual for one in self.classes)

    @property
    def accuracy(self) -> float:
        """The part of all images that is recognised."""
        return sum(one.true_positives for one in self.classes) / self.rows

    @property
    def mean_class_accuracy(self) -> float:
        """The mean over the classes that have images: 1 / classes for guessing, however uneven."""
        present = [one for one in self.classes if one.actual]
        return sum(one.true_positives / one.actual for one in present) / len(present)

    @property
    def confused(self) -> list[ConfusedPair]:
        """The pairs that are confused, by their share, then their images; the largest first."""
        found = [
            ConfusedPair(one.name, other.name, images, images / one.actual)
            for one, row in zip(self.classes, self.confusion, strict=True)
            for other, images in zip(self.classes, row, strict=True)
            if images and other is not one
        ]
        return sorted(found, key=lambda pair: (-pair.share, -pair.images))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without NaN; what does not exist is None."""
        return {
            **self.accuracies(),
            "top2_accuracy": self.top2_accuracy,
            "loss": self.loss,
            "intervals": {
                "method": "percentile bootstrap over images",
                "level": CONFIDENCE_LEVEL,
                "resamples": RESAMPLE_COUNT,
                "seed": self.intervals.seed,
            },
            "classes": {
                one.name: {
                    "actual": one.actual,
                    "predicted": one.predicted,
                    "true_positives": one.true_positives,
                    **_scores(one.scores, one.actual),
                    "accuracy_interval": _ends(interval),
                }
                for one, interval in zip(self.classes, self.intervals.classes, strict=True)
            },
            "macro_average": _scores(self.macro, self.rows),
            "weighted_average": _scores(self.weighted, self.rows),
            "confusion_matrix": [list(row) for row in self.confusion],
            "confused_pairs": [asdict(pair) for pair in self.confused],
            "calibration": {
                "expected_calibration_error": self.calibration.error,
                "mean_confidence": self.calibration.confidence,
                "bins": [asdict(one) for one in self.calibration.bins],
            },
            "coverage": [asdict(one) for one in self.coverage],
        }

    def accuracies(self) -> dict[str, Any]:
        """Of `to_dict`, how many images there are and both accuracies with their intervals."""
        return {
            "rows": self.rows,
            "accuracy": self.accuracy,
            "accuracy_interval": _ends(self.intervals.accuracy),
            "mean_class_accuracy": self.mean_class_accuracy,
            "mean_class_accuracy_interval": _ends(self.intervals.mean_class_accuracy),
        }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _scores(scores: ClassScores, support: int) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy,
        "precision": scores.precision,
        "recall": scores.accuracy,
        "f1": scores.f1,
        "support": support,
    }


def compute_metrics(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: Sequence[str], seed: int = 0
) -> Metrics:
    """Compares what is true with what a model says.

    Args:
        labels: The true classes, whole numbers in 0..classes-1, of shape (n,); n at least 1.
        probabilities: The model's, of shape (n, classes), each row adding up to 1. The most
            probable class is the prediction, the first of equally probable ones.
        classes: The names of the classes, at least two, in the order of their labels.
        seed: Of the intervals.

    Raises:
        ValueError: The arrays are empty, do not fit each other or the classes, or hold labels or
            probabilities that are none.
    """
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes, got {len(classes)}")
    truth, given = validate_probabilities(labels, probabilities, len(classes))
    guesses = predicted_classes(given)
    every = np.arange(len(classes))
    confusion = confusion_matrix(truth, guesses, labels=every)
    actual, taken = confusion.sum(axis=1), confusion.sum(axis=0)
    present = every[actual > 0]
    per_class = precision_recall_fscore_support(truth, guesses, labels=every, zero_division=0)

    def average(kind: str) -> ClassScores:
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, guesses, labels=present, average=kind, zero_division=0
        )
        return ClassScores(float(recall), float(precision), float(f1))

    def of_class(label: int) -> ClassScores:
        precision, recall, f1 = (float(values[label]) for values in per_class[:3])
        return (
            ClassScores(recall, precision, f1) if actual[label] else ClassScores(None, None, None)
        )

    return Metrics(
        classes=tuple(
            ClassMetrics(name, int(actual[i]), int(taken[i]), int(confusion[i, i]), of_class(i))
            for i, name in enumerate(classes)
        ),
        macro=average("macro"),
        weighted=average("weighted"),
        top2_accuracy=float((_ranks(truth, given) < 2).mean()),
        # A row that adds up to 1 in float32 does not in float64, of which scikit-learn would warn.
        # In float64 it takes 2.2e-16, a loss of 36, for the least probability.
        loss=float(log_loss(truth, given / given.sum(axis=1, keepdims=True), labels=every)),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        intervals=compute_bootstrap_intervals(actual.tolist(), confusion.diagonal().tolist(), seed),
        calibration=measure_calibration(truth, given),
        coverage=select_coverage_points(compute_accuracy_coverage(truth, given)),
    )


def _ranks(truth: npt.NDArray[np.int64], given: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How many classes come before the true one: 0 exactly where the prediction is right."""
    # scikit-learn's top_k_accuracy_score lets the last of equals come first, so that its top-1 is
    # not the accuracy, and knows no two classes.
    own = np.take_along_axis(given, truth[:, None], axis=1)
    earlier = np.arange(given.shape[1]) < truth[:, None]
    return ((given > own) | ((given == own) & earlier)).sum(axis=1)
