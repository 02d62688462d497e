"""Calibration of a model's confidence, and accuracy against coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_pipeline.metrics.inputs import predict_classes, validate_logits, validate_probabilities

BIN_COUNT = 15
"""Number of confidence bins of equal width."""

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
"""Fractions of the images at which accuracy against coverage is reported."""


@dataclass(frozen=True)
class Bin:
    """Images whose confidence, the probability of the predicted class, is in (low, high].

    Attributes:
        low: Lower end of the bin.
        high: Upper end of the bin.
        images: Number of images in the bin.
        confidence: Mean confidence of the images; None for an empty bin.
        accuracy: Fraction of the images that are recognised; None for an empty bin.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Agreement of confidence and accuracy.

    Attributes:
        error: Expected calibration error in 0..1: the mean distance of accuracy and mean confidence
            in a bin, weighted by images; about 0 for a calibrated model.
        confidence: Mean confidence of all images.
        bins: The `BIN_COUNT` bins, of equal width.
    """

    error: float
    confidence: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class CoveragePoint:
    """Accuracy of the images that remain if only confident predictions count.

    Attributes:
        requested: Requested fraction of all images.
        coverage: Fraction that remains: at least the requested one, more if confidences are equal.
        images: Number of images that remain.
        min_confidence: Highest confidence threshold that keeps the requested fraction.
        accuracy: Fraction of the remaining images that are recognised.
    """

    requested: float
    coverage: float
    images: int
    min_confidence: float
    accuracy: float


@dataclass(frozen=True)
class AccuracyCoverageCurve:
    """Accuracy against coverage at each distinct confidence, the highest first.

    Attributes:
        confidence: Confidence thresholds.
        images: Number of images at or above each threshold.
        accuracy: Fraction of these images that are recognised.
    """

    confidence: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    accuracy: npt.NDArray[np.float64]


def measure_calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Calibration:
    """Return the expected calibration error and the bins of the reliability diagram.

    Source: equations 2 and 3 of Guo et al., On Calibration of Modern Neural Networks, 2017,
    https://arxiv.org/abs/1706.04599.

    Args:
        labels: True classes, whole numbers in 0..classes-1, of shape (n,), n at least 1.
        probabilities: Predicted probabilities of shape (n, classes). The most probable class is the
            prediction, the first of equally probable ones.

    Raises:
        ValueError: The arrays are empty, do not match each other, or contain invalid labels or
            probabilities.
    """
    confidence, is_correct = _evaluate_predictions(labels, probabilities)
    edges = np.arange(BIN_COUNT + 1) / BIN_COUNT
    # The outer edges are left out: rounding can make a probability slightly larger than 1.
    bin_index = np.searchsorted(edges[1:-1], confidence, side="left")
    images = np.bincount(bin_index, minlength=BIN_COUNT)
    confidence_sum = np.bincount(bin_index, confidence, BIN_COUNT)
    correct_count = np.bincount(bin_index, is_correct, BIN_COUNT)
    return Calibration(
        error=float(abs(correct_count - confidence_sum).sum() / len(is_correct)),
        confidence=float(confidence.mean()),
        bins=tuple(
            Bin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                images=int(images[i]),
                confidence=float(confidence_sum[i] / images[i]) if images[i] else None,
                accuracy=float(correct_count[i] / images[i]) if images[i] else None,
            )
            for i in range(BIN_COUNT)
        ),
    )


def compute_accuracy_coverage(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> AccuracyCoverageCurve:
    """Return the accuracy at each confidence threshold.

    Source: El-Yaniv and Wiener, JMLR 11, 2010, with 1 - accuracy as the risk. Images of equal
    confidence are kept or rejected together, as by a threshold.

    Args:
        labels: As for `measure_calibration`.
        probabilities: As for `measure_calibration`.

    Raises:
        ValueError: As for `measure_calibration`.
    """
    confidence, is_correct = _evaluate_predictions(labels, probabilities)
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, correct_count = confidence[order], is_correct[order].cumsum()
    (last_of_equals,) = np.nonzero(np.append(np.diff(sorted_confidence) < 0, True))
    images = last_of_equals + 1
    return AccuracyCoverageCurve(
        sorted_confidence[last_of_equals], images, correct_count[last_of_equals] / images
    )


def select_coverage_points(curve: AccuracyCoverageCurve) -> tuple[CoveragePoint, ...]:
    """Return the points of a curve at which `COVERAGES` are reached."""
    total = int(curve.images[-1])

    def select_point(requested: float) -> CoveragePoint:
        # Rounded first: in binary, 0.7 times 10 may be slightly larger than 7.
        min_images = max(1, int(np.ceil(round(requested * total, 6))))
        index = int(np.searchsorted(curve.images, min_images))
        images = int(curve.images[index])
        return CoveragePoint(
            requested=requested,
            coverage=images / total,
            images=images,
            min_confidence=float(curve.confidence[index]),
            accuracy=float(curve.accuracy[index]),
        )

    return tuple(map(select_point, COVERAGES))


def fit_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, bounds: tuple[float, float]
) -> float:
    """Return the temperature that calibrates a model.

    Temperature scaling: section 4.2 of Guo et al., On Calibration of Modern Neural Networks, 2017,
    https://arxiv.org/abs/1706.04599. It changes no prediction.

    Args:
        logits: Logits of shape (n, classes), n and classes at least 1, for images that the model
            was not trained on.
        labels: True classes, whole numbers in 0..classes-1, of shape (n,).
        bounds: Lowest and highest temperature, above 0.

    Returns:
        The temperature T within the bounds that minimises the mean cross-entropy of
        softmax(logits / T). The minimum is unique because the loss is convex in 1 / T. T is the
        lower bound if every image is recognised by any margin, and 1 if no T is better than another
        (the logits of each image are all equal).

    Raises:
        ValueError: The arrays are empty, do not match each other, or contain invalid labels or
            logits.
    """
    labels, logits = validate_logits(labels, logits)
    true_class = np.arange(len(labels)), labels
    if not np.ptp(logits, axis=1).any():
        return 1.0

    def compute_loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[true_class].mean())

    low, high = np.log(bounds)
    minimum = minimize_scalar(
        compute_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    # The search approaches a bound but never reaches it, and it may end anywhere on a flat loss,
    # for example one that is 0.
    best = min((low, high, minimum.x), key=compute_loss)
    return float(np.clip(np.exp(best), *bounds))


def _evaluate_predictions(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the confidence of each prediction and whether it is correct."""
    labels, probabilities = validate_probabilities(labels, probabilities)
    return probabilities.max(axis=1), predict_classes(probabilities) == labels
