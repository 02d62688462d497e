"""Metrics of a classifier: per-class scores, averages, confusion, calibration and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    compute_accuracy_coverage_curve,
    measure_calibration,
    select_coverage_points,
)
from fer_pipeline.metrics.inputs import predict_classes, validate_probabilities


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, or their averages over the classes.

    Each score is in [0, 1], or None if the class has no images.

    Attributes:
        accuracy: Recall of the class: the fraction of its images that are correctly classified.
        precision: Fraction of the images predicted as the class that belong to it; 0 if no image
            is predicted as the class.
        f1: Harmonic mean of precision and recall.
    """

    accuracy: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassMetrics:
    """Counts and scores of one class.

    Attributes:
        name: Name of the class.
        actual: Number of images of the class; scikit-learn calls it the support.
        predicted: Number of images predicted as the class.
        true_positives: Number of images of the class that are also predicted as it.
        scores: Scores of the class; all None if the class has no images.
    """

    name: str
    actual: int
    predicted: int
    true_positives: int
    scores: ClassScores


@dataclass(frozen=True)
class ConfusedPair:
    """Number of images of one class that are predicted as a different class.

    Attributes:
        true: Name of the true class.
        predicted: Name of the predicted class.
        image_count: Number of images with this true and this predicted class.
        share: `image_count` as a fraction of the images of the true class, in (0, 1].
    """

    true: str
    predicted: str
    image_count: int
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as a dictionary for JSON."""
        return {
            "true": self.true,
            "predicted": self.predicted,
            "images": self.image_count,
            "share": self.share,
        }


@dataclass(frozen=True)
class Metrics:
    """All metrics of an evaluation.

    A class without images has no scores and is excluded from the averages. An image that is
    predicted as such a class still counts as an error.

    Raises:
        ValueError: No class has images, so that the accuracies are undefined.

    Attributes:
        classes: Metrics of each class, in the order of the labels. One or more classes have images.
        macro: Unweighted mean of the class scores. Its accuracy is the mean of the per-class
            accuracies.
        weighted: Mean of the class scores, weighted by the number of images of each class. Its
            accuracy is the overall accuracy.
        top2_accuracy: Fraction of the images for which the true class is among the two most
            probable classes.
        loss: Mean cross-entropy, in nats.
        confusion: Number of images by true class (rows) and predicted class (columns).
        intervals: Confidence intervals of the accuracies.
        calibration: Agreement between confidence and accuracy.
        coverage: Accuracy of the most confident predictions, at several coverages.
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

    def __post_init__(self) -> None:
        """Check that there are images; without images, the accuracies are undefined.

        Raises:
            ValueError: No class has images.
        """
        if not self.image_count:
            raise ValueError("expected metrics of one or more images, got no class with images")

    @property
    def image_count(self) -> int:
        """Number of evaluated images, 1 or more."""
        return sum(class_metrics.actual for class_metrics in self.classes)

    @property
    def correct_count(self) -> int:
        """Number of images that are correctly classified."""
        return sum(class_metrics.true_positives for class_metrics in self.classes)

    @property
    def accuracy(self) -> float:
        """Fraction of all images that are correctly classified."""
        return self.correct_count / self.image_count

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the per-class accuracies (recalls), also called balanced accuracy.

        Classes without images are left out.
        """
        recalls = [
            class_metrics.true_positives / class_metrics.actual
            for class_metrics in self.classes
            if class_metrics.actual
        ]
        return sum(recalls) / len(recalls)

    @property
    def confused_pairs(self) -> list[ConfusedPair]:
        """Pairs of a true class and a class wrongly predicted for it, most confused first.

        The pairs are sorted by the fraction of the true class's images that are predicted as the
        wrong class, and in a tie by the number of these images. Pairs without images are left out.
        """
        names = [class_metrics.name for class_metrics in self.classes]
        pairs = [
            ConfusedPair(true.name, predicted, image_count, image_count / true.actual)
            for true, row in zip(self.classes, self.confusion, strict=True)
            for predicted, image_count in zip(names, row, strict=True)
            if image_count and predicted != true.name
        ]
        return sorted(pairs, key=lambda pair: (-pair.share, -pair.image_count))

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as a dictionary for JSON; undefined numbers are None, never NaN."""
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
            "confused_pairs": [pair.to_dict() for pair in self.confused_pairs],
            "calibration": {
                "expected_calibration_error": self.calibration.error,
                "mean_confidence": self.calibration.confidence,
                "bins": [confidence_bin.to_dict() for confidence_bin in self.calibration.bins],
            },
            "coverage": [point.to_dict() for point in self.coverage],
        }

    def accuracies_to_dict(self) -> dict[str, Any]:
        """Return the number of images and the accuracies as a dictionary for JSON.

        The accuracies are the overall accuracy and the mean of the per-class accuracies, each with
        its confidence interval.
        """
        return {
            "rows": self.image_count,
            "accuracy": self.accuracy,
            "accuracy_interval": _interval_to_list(self.intervals.accuracy),
            "mean_class_accuracy": self.mean_class_accuracy,
            "mean_class_accuracy_interval": _interval_to_list(self.intervals.mean_class_accuracy),
        }


def _class_to_dict(class_metrics: ClassMetrics, interval: Interval | None) -> dict[str, Any]:
    """Return the metrics of a class as a dictionary for JSON.

    Args:
        class_metrics: Metrics of the class.
        interval: Confidence interval of the class's accuracy; None if the class has no images.
    """
    return {
        "actual": class_metrics.actual,
        "predicted": class_metrics.predicted,
        "true_positives": class_metrics.true_positives,
        **_scores_to_dict(class_metrics.scores, class_metrics.actual),
        "accuracy_interval": _interval_to_list(interval),
    }


def _interval_to_list(interval: Interval | None) -> list[float] | None:
    """Return a confidence interval as [low, high] for JSON; None if there is no interval."""
    return None if interval is None else [interval.low, interval.high]


def _scores_to_dict(scores: ClassScores, support: int) -> dict[str, Any]:
    """Return the scores of one class, or the average scores of all classes, for JSON.

    The keys `accuracy` and `recall` have the same number: the accuracy of a class is its recall.

    Args:
        scores: Scores of one class, or average scores.
        support: Number of images that the scores are measured on.
    """
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
    """Compute all metrics from the true classes and the predicted probabilities.

    Args:
        labels: True classes, integers in [0, classes - 1], of shape (n,), n >= 1.
        probabilities: Predicted probabilities of shape (n, classes); each row sums to 1. The
            prediction is the most probable class; a tie is resolved in favour of the lowest label.
        classes: Names of two or more classes, in the order of their labels.
        seed: Seed of the bootstrap samples for the confidence intervals.

    Raises:
        ValueError: The arrays are empty, their shapes do not match each other or the classes, or
            they contain invalid labels or probabilities.
    """
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes, got {len(classes)}")
    labels, probabilities = validate_probabilities(labels, probabilities, len(classes))
    predicted = predict_classes(probabilities)
    all_labels = np.arange(len(classes))
    confusion = confusion_matrix(labels, predicted, labels=all_labels)
    actual_counts = confusion.sum(axis=1)
    present_labels = all_labels[actual_counts > 0]
    # A row that sums to 1 in float32 may not sum to 1 in float64, and scikit-learn would warn.
    # In float64 it clips probabilities at 2.2e-16, which limits the loss of an image to 36.
    normalized = probabilities / probabilities.sum(axis=1, keepdims=True)
    return Metrics(
        classes=_compute_class_metrics(labels, predicted, confusion, classes),
        macro=_average_scores(labels, predicted, present_labels, "macro"),
        weighted=_average_scores(labels, predicted, present_labels, "weighted"),
        top2_accuracy=float((_rank_true_class(labels, probabilities) < 2).mean()),
        loss=float(log_loss(labels, normalized, labels=all_labels)),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
        intervals=compute_bootstrap_intervals(
            actual_counts.tolist(), confusion.diagonal().tolist(), seed
        ),
        calibration=measure_calibration(labels, probabilities),
        coverage=select_coverage_points(compute_accuracy_coverage_curve(labels, probabilities)),
    )


def _compute_class_metrics(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confusion: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> tuple[ClassMetrics, ...]:
    """Return the counts and scores of each class, in the order of the labels.

    The scores of a class without images are None.

    Args:
        labels: True classes, of shape (n,).
        predicted: Predicted classes, of shape (n,).
        confusion: Number of images by true class (rows) and predicted class (columns).
        classes: Names of the classes.
    """
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
    """Return the average precision, the average recall and the average F1 of several classes.

    Args:
        labels: True classes, of shape (n,).
        predicted: Predicted classes, of shape (n,).
        averaged_labels: Labels of the classes to average over.
        average: Averaging method of scikit-learn, "macro" or "weighted".
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=averaged_labels, average=average, zero_division=0
    )
    return ClassScores(float(recall), float(precision), float(f1))


def _rank_true_class(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the rank of the true class of each image, if the classes are sorted by probability.

    Rank 0 is the most probable class, which is the predicted class. Among classes with the same
    probability, the one with the lowest label ranks first.

    Args:
        labels: True classes, of shape (n,).
        probabilities: Predicted probabilities, of shape (n, classes).

    Returns:
        The ranks, of shape (n,), in [0, classes - 1].
    """
    # scikit-learn's top_k_accuracy_score prefers the highest label in a tie, so that its top-1
    # accuracy differs from the accuracy, and it does not support two classes.
    true_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)
    has_lower_label = np.arange(probabilities.shape[1]) < labels[:, None]
    is_tied_before = (probabilities == true_probability) & has_lower_label
    return ((probabilities > true_probability) | is_tied_before).sum(axis=1)
