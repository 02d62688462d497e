"""Calibration of a model's confidence, and accuracy against coverage.

The confidence of a prediction is the probability of the predicted class. The coverage of a
confidence threshold is the fraction of the images with at least this confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_pipeline.metrics.inputs import predict_classes, validate_logits, validate_probabilities

BIN_COUNT = 15
"""Number of confidence bins of equal width."""

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
"""Coverages at which the accuracy is reported."""


@dataclass(frozen=True)
class Bin:
    """Statistics of the images with a confidence in (low, high].

    Attributes:
        low: Lower end of the bin.
        high: Upper end of the bin.
        image_count: Number of images in the bin.
        confidence: Mean confidence of the images; None for an empty bin.
        accuracy: Fraction of the images that are correctly classified; None for an empty bin.
    """

    low: float
    high: float
    image_count: int
    confidence: float | None
    accuracy: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the bin as a dictionary for JSON."""
        return {
            "low": self.low,
            "high": self.high,
            "images": self.image_count,
            "confidence": self.confidence,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Calibration:
    """Agreement between the confidence and the accuracy of a model.

    Attributes:
        error: Expected calibration error, in [0, 1]: the absolute difference between accuracy and
            mean confidence of a bin, averaged over the bins and weighted by their numbers of
            images. It is close to 0 for a well calibrated model.
        confidence: Mean confidence of all images.
        bins: `BIN_COUNT` bins of equal width.
    """

    error: float
    confidence: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class CoveragePoint:
    """Accuracy of the images that remain if predictions below a confidence are rejected.

    Attributes:
        requested: Requested coverage.
        coverage: Fraction of the images that remain. It exceeds the requested coverage if several
            images have exactly the threshold as confidence.
        image_count: Number of images that remain.
        min_confidence: Highest confidence threshold that reaches the requested coverage.
        accuracy: Fraction of the remaining images that are correctly classified.
    """

    requested: float
    coverage: float
    image_count: int
    min_confidence: float
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Return the point as a dictionary for JSON."""
        return {
            "requested": self.requested,
            "coverage": self.coverage,
            "images": self.image_count,
            "min_confidence": self.min_confidence,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class AccuracyCoverageCurve:
    """Accuracy against coverage: one array entry per distinct confidence, the highest first.

    Attributes:
        confidence: Confidence thresholds.
        image_counts: Number of images at or above each threshold.
        accuracy: Fraction of these images that are correctly classified.
    """

    confidence: npt.NDArray[np.float64]
    image_counts: npt.NDArray[np.int64]
    accuracy: npt.NDArray[np.float64]


def measure_calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Calibration:
    """Compute the expected calibration error and the bins of the reliability diagram.

    Source: equations 2 and 3 of Guo et al., On Calibration of Modern Neural Networks, 2017,
    https://arxiv.org/abs/1706.04599.

    Args:
        labels: True classes, integers in [0, classes - 1], of shape (n,), n >= 1.
        probabilities: Predicted probabilities of shape (n, classes). The prediction is the most
            probable class; a tie is resolved in favour of the lowest label.

    Raises:
        ValueError: The arrays are empty, their shapes do not match, or they contain invalid labels
            or probabilities.
    """
    confidence, is_correct = _compute_confidence_and_correctness(labels, probabilities)
    edges = np.arange(BIN_COUNT + 1) / BIN_COUNT
    # The outer edges are omitted because rounding can make a probability slightly larger than 1.
    bin_index = np.searchsorted(edges[1:-1], confidence, side="left")
    image_counts = np.bincount(bin_index, minlength=BIN_COUNT)
    confidence_sum = np.bincount(bin_index, confidence, BIN_COUNT)
    correct_count = np.bincount(bin_index, is_correct, BIN_COUNT)
    return Calibration(
        error=float(abs(correct_count - confidence_sum).sum() / len(is_correct)),
        confidence=float(confidence.mean()),
        bins=tuple(
            Bin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                image_count=int(image_count),
                confidence=float(confidence_sum[i] / image_count) if image_count else None,
                accuracy=float(correct_count[i] / image_count) if image_count else None,
            )
            for i, image_count in enumerate(image_counts)
        ),
    )


def compute_accuracy_coverage_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> AccuracyCoverageCurve:
    """Compute the accuracy and the coverage at each confidence threshold.

    The confidence is the probability of the predicted class. Each distinct confidence is a
    threshold: images with a lower confidence are rejected. The coverage is the fraction of the
    images that remain. Images of equal confidence remain or are rejected together.

    Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR 11,
    2010; their risk is 1 - accuracy.

    Args:
        labels: True classes, integers in [0, classes - 1], of shape (n,), n >= 1.
        probabilities: Predicted probabilities of shape (n, classes). The prediction is the most
            probable class; a tie is resolved in favour of the lowest label.

    Raises:
        ValueError: The arrays are empty, their shapes do not match, or they contain invalid labels
            or probabilities.
    """
    confidence, is_correct = _compute_confidence_and_correctness(labels, probabilities)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, correct_count = confidence[order], is_correct[order].cumsum()
    (last_of_equals,) = np.nonzero(np.append(np.diff(sorted_confidence) < 0, True))
    image_counts = last_of_equals + 1
    return AccuracyCoverageCurve(
        sorted_confidence[last_of_equals],
        image_counts,
        correct_count[last_of_equals] / image_counts,
    )


def select_coverage_points(curve: AccuracyCoverageCurve) -> tuple[CoveragePoint, ...]:
    """Return, for each coverage in `COVERAGES`, the first point of the curve that reaches it.

    The coverage of a point is the fraction of the images whose confidence is not below the point's
    threshold. It increases along the curve, because the thresholds decrease.

    Args:
        curve: Accuracy and number of images at each confidence threshold, the highest first.
    """
    total_count = int(curve.image_counts[-1])

    def select_point(requested: float) -> CoveragePoint:
        """Return the first point of the curve with at least the requested coverage.

        Args:
            requested: Coverage, a fraction in (0, 1].
        """
        # In floating point, 0.7 * 10 may be slightly larger than 7, so it is rounded first.
        min_count = max(1, int(np.ceil(round(requested * total_count, 6))))
        index = int(np.searchsorted(curve.image_counts, min_count))
        image_count = int(curve.image_counts[index])
        return CoveragePoint(
            requested=requested,
            coverage=image_count / total_count,
            image_count=image_count,
            min_confidence=float(curve.confidence[index]),
            accuracy=float(curve.accuracy[index]),
        )

    return tuple(map(select_point, COVERAGES))


def fit_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, bounds: tuple[float, float]
) -> float:
    """Fit the softmax temperature that calibrates a model's probabilities.

    Dividing the logits by a temperature does not change the predicted classes. Source: section 4.2
    of Guo et al., On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599.

    Args:
        logits: Logits of shape (n, classes), n >= 1, classes >= 1, for images that the model was
            not trained on.
        labels: True classes, integers in [0, classes - 1], of shape (n,).
        bounds: Lowest and highest allowed temperature, both above 0.

    Returns:
        The temperature T within the bounds that minimises the mean cross-entropy of
        softmax(logits / T), which is a convex function of 1 / T. If the true class of every image
        has the highest logit, T is the lower bound. If the logits of each image are all equal, the
        cross-entropy does not depend on T, and T is 1.

    Raises:
        ValueError: The arrays are empty, their shapes do not match, or they contain invalid labels
            or logits.
    """
    labels, logits = validate_logits(labels, logits)
    true_class = np.arange(len(labels)), labels
    if not np.ptp(logits, axis=1).any():
        return 1.0

    def compute_loss(log_temperature: float) -> float:
        """Return the mean cross-entropy at a temperature.

        Args:
            log_temperature: Natural logarithm of the temperature.
        """
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[true_class].mean())

    low, high = np.log(bounds)
    minimum = minimize_scalar(
        compute_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    # The search approaches a bound but never reaches it, and it may end anywhere if the loss is
    # constant, for example 0.
    best = min((low, high, minimum.x), key=compute_loss)
    return float(np.clip(np.exp(best), *bounds))


def _compute_confidence_and_correctness(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the confidence of each prediction, and a mask of the correct predictions.

    The confidence is the probability of the predicted class.

    Args:
        labels: True classes, of shape (n,).
        probabilities: Predicted probabilities, of shape (n, classes).

    Raises:
        ValueError: The arrays are empty, their shapes do not match, or they contain invalid labels
            or probabilities.
    """
    labels, probabilities = validate_probabilities(labels, probabilities)
    return probabilities.max(axis=1), predict_classes(probabilities) == labels
