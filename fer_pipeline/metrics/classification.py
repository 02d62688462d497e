"""Metrics of a classifier: scores per class, averages, confusion, calibration and coverage."""

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
from fer_pipeline.metrics.inputs import predict_classes, validate_probabilities


@dataclass(frozen=True)
class ClassScores:
    """Fractions in 0..1; None if there is no image to measure them on.

    Attributes:
        accuracy: Recall of a class: the fraction of its images that are recognised.
        precision: Fraction of the images predicted as the class that belong to it; 0 if no image
            is predicted as the class.
        f1: Harmonic mean of the two.
    """

    accuracy: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassMetrics:
    """Counts and scores of one class.

    Attributes:
        name: The emotion.
        actual: Number of images of the class; scikit-learn's support.
        predicted: Number of images predicted as the class.
        true_positives: Number of images that are both.
        scores: Scores of the class; all None if the class has no image.
    """

    name: str
    actual: int
    predicted: int
    true_positives: int
    scores: ClassScores


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that are predicted as another one.

    Attributes:
        true: Name of the true class.
        predicted: Name of the predicted class.
        images: Number of such images.
        share: Fraction of the true class's images that these are, in 0..1.
    """

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Metrics:
    """All metrics of an evaluation.

    A class without images has no scores and is left out of the averages; an image that is predicted
    as such a class is still an error.

    Attributes:
        classes: Metrics of each class, in the order of the labels.
        macro: Unweighted mean of the class scores; its accuracy is the mean per-class accuracy.
        weighted: Mean of the class scores weighted by `actual`; its accuracy is the overall
            accuracy.
        top2_accuracy: Fraction of the images whose class is among the two most probable ones.
        loss: Mean cross-entropy, in nats.
        confusion: Number of images by true class (rows) and predicted class (columns).
        intervals: Confidence intervals of the accuracies.
        calibration: Agreement of confidence and accuracy.
        coverage: Accuracy of the most confident images, at several coverages.
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
    def image_count(self) -> int:
        """Number of evaluated images."""
        return sum(class_metrics.actual for class_metrics in self.classes)

    @property
    def correct_count(self) -> int:
        """Number of images that are recognised."""
        return sum(class_metrics.true_positives for class_metrics in self.classes)

    @property
    def accuracy(self) -> float:
        """Fraction of all images that are recognised."""
        return self.correct_count / self.image_count

    @property
    def mean_class_accuracy(self) -> float:
        """Mean accuracy of the classes that have images: 1 / classes for random guesses."""
        recalls = [
            class_metrics.true_positives / class_metrics.actual
            for class_metrics in self.classes
            if class_metrics.actual
        ]
        return sum(recalls) / len(recalls)

    @property
    def confused_pairs(self) -> list[ConfusedPair]:
        """Pairs of classes that are confused, sorted by falling share, then number of images."""
        names = [class_metrics.name for class_metrics in self.classes]
        pairs = [
            ConfusedPair(true.name, predicted, images, images / true.actual)
            for true, row in zip(self.classes, self.confusion, strict=True)
            for predicted, images in zip(names, row, strict=True)
            if images and predicted != true.name
        ]
        return sorted(pairs, key=lambda pair: (-pair.share, -pair.images))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without NaN; a missing value is None."""
        return {
            **self.accuracies_to_dict(),
            "top2_accuracy": self.top2_accuracy,
            "loss": self.loss,
            "intervals": {
                "method": "percentile bootstrap over images",
                "level": CONFIDENCE_LEVEL,
                "resamples": RESAMPLE_COUNT,
                "seed": self.intervals.seed,
            },
            "classes": {
                class_metrics.name: _class_to_dict(class_metrics, interval)
                for class_metrics, interval in zip(
                    self.classes, self.intervals.classes, strict=True
                )
            },
            "macro_average": _scores_to_dict(self.macro, self.image_count),
            "weighted_average": _scores_to_dict(self.weighted, self.image_count),
            "confusion_matrix": [list(row) for row in self.confusion],
            "confused_pairs": [asdict(pair) for pair in self.confused_pairs],
            "calibration": {
                "expected_calibration_error": self.calibration.error,
                "mean_confidence": self.calibration.confidence,
                "bins": [asdict(confidence_bin) for confidence_bin in self.calibration.bins],
            },
            "coverage": [asdict(point) for point in self.coverage],
        }

    def accuracies_to_dict(self) -> dict[str, Any]:
        """Return the part of `to_dict` with the number of images and both accuracies."""
        return {
            "rows": self.image_count,
            "accuracy": self.accuracy,
            "accuracy_interval": _interval_to_list(self.intervals.accuracy),
            "mean_class_accuracy": self.mean_class_accuracy,
            "mean_class_accuracy_interval": _interval_to_list(self.intervals.mean_class_accuracy),
        }


def _class_to_dict(class_metrics: ClassMetrics, interval: Interval | None) -> dict[str, Any]:
    return {
        "actual": class_metrics.actual,
        "predicted": class_metrics.predicted,
        "true_positives": class_metrics.true_positives,
        **_scores_to_dict(class_metrics.scores, class_metrics.actual),
        "accuracy_interval": _interval_to_list(interval),
    }


def _interval_to_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _scores_to_dict(scores: ClassScores, support: int) -> dict[str, Any]:
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
    """Compare the true classes with the probabilities that a model predicts.

    Args:
        labels: True classes, whole numbers in 0..classes-1, of shape (n,); n at least 1.
        probabilities: Predicted probabilities of shape (n, classes), each row adding up to 1. The
            most probable class is the prediction, the first of equally probable ones.
        classes: Names of the classes, at least two, in the order of their labels.
        seed: Seed of the bootstrap intervals.

    Raises:
        ValueError: The arrays are empty, do not match each other or the classes, or contain invalid
            labels or probabilities.
    """
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes, got {len(classes)}")
    labels, probabilities = validate_probabilities(labels, probabilities, len(classes))
    predicted = predict_classes(probabilities)
    all_labels = np.arange(len(classes))
    confusion = confusion_matrix(labels, predicted, labels=all_labels)
    actual_counts = confusion.sum(axis=1)
    present_labels = all_labels[actual_counts > 0]
    # A row that adds up to 1 in float32 does not in float64, of which scikit-learn would warn.
    # In float64 it clips the smallest probability to 2.2e-16, a loss of 36.
    normalized = probabilities / probabilities.sum(axis=1, keepdims=True)
    return Metrics(
        classes=_measure_classes(labels, predicted, confusion, classes),
        macro=_average_scores(labels, predicted, present_labels, "macro"),
        weighted=_average_scores(labels, predicted, present_labels, "weighted"),
        top2_accuracy=float((_rank_true_class(labels, probabilities) < 2).mean()),
        loss=float(log_loss(labels, normalized, labels=all_labels)),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        intervals=compute_bootstrap_intervals(
            actual_counts.tolist(), confusion.diagonal().tolist(), seed
        ),
        calibration=measure_calibration(labels, probabilities),
        coverage=select_coverage_points(compute_accuracy_coverage(labels, probabilities)),
    )


def _measure_classes(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confusion: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> tuple[ClassMetrics, ...]:
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    actual_counts, predicted_counts = confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassMetrics(
            name=name,
            actual=int(actual_counts[label]),
            predicted=int(predicted_counts[label]),
            true_positives=int(confusion[label, label]),
            scores=(
                ClassScores(float(recall[label]), float(precision[label]), float(f1[label]))
                if actual_counts[label]
                else ClassScores(None, None, None)
            ),
        )
        for label, name in enumerate(classes)
    )


def _average_scores(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    averaged_labels: npt.NDArray[np.int64],
    average: str,
) -> ClassScores:
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=averaged_labels, average=average, zero_division=0
    )
    return ClassScores(float(recall), float(precision), float(f1))


def _rank_true_class(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return how many classes precede the true one: 0 exactly if the prediction is correct."""
    # scikit-learn's top_k_accuracy_score ranks the last of equal classes first, so that its top-1
    # differs from the accuracy, and it does not support two classes.
    true_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)
    has_lower_label = np.arange(probabilities.shape[1]) < labels[:, None]
    is_tied_before = (probabilities == true_probability) & has_lower_label
    return ((probabilities > true_probability) | is_tied_before).sum(axis=1)
