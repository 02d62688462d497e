"""How far a model's confidence can be trusted: calibration, and accuracy against coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fer_pipeline.answers import checked_logits, checked_probabilities, predictions
from fer_pipeline.config.training import TEMPERATURES

BINS = 15
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
"""The parts of the images for which `coverage` says what they need."""


@dataclass(frozen=True)
class Bin:
    """The images whose confidence, the probability of the predicted class, is in (low, high].

    Attributes:
        low: The lower end.
        high: The upper end.
        images: How many there are.
        confidence: Their mean confidence; None where there are none.
        accuracy: The part of them that is recognised; None where there are none.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy agree.

    Attributes:
        error: The expected calibration error: the mean, weighted by images, of the distance of
            accuracy and mean confidence in a bin; 0..1, of a model that is as sure as it is right
            about 0.
        confidence: The mean confidence.
        bins: `BINS` of equal width.
    """

    error: float
    confidence: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Covered:
    """The images that are left where only confident predictions count.

    Attributes:
        asked: The part of all images that is asked for.
        coverage: The part that is left: no less, and more where confidences are equal.
        images: How many these are.
        min_confidence: The least confidence that counts: the highest that leaves so many.
        accuracy: The part of them that is recognised.
    """

    asked: float
    coverage: float
    images: int
    min_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """Accuracy against coverage at every confidence that occurs, the highest first.

    Attributes:
        confidence: The least confidence that counts.
        images: How many images have at least that.
        accuracy: The part of them that is recognised.
    """

    confidence: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    accuracy: npt.NDArray[np.float64]


def calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Calibration:
    """The expected calibration error of the predictions, and the bins of its reliability diagram.

    Equations 2 and 3 of Guo et al., On Calibration of Modern Neural Networks, 2017,
    https://arxiv.org/abs/1706.04599.

    Args:
        labels: The true classes, whole numbers in 0..classes-1, of shape (n,), n at least 1.
        probabilities: The model's, of shape (n, classes); the most probable class is the
            prediction, the first of equally probable ones.

    Raises:
        ValueError: The arrays are empty, do not fit each other, or hold labels or probabilities
            that are none.
    """
    confidence, right = _predicted(labels, probabilities)
    edges = np.arange(BINS + 1) / BINS
    # Rounding can leave a probability slightly above 1.
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    images = np.bincount(place, minlength=BINS)
    sure = np.bincount(place, confidence, BINS)
    hits = np.bincount(place, right, BINS)
    return Calibration(
        error=float(abs(hits - sure).sum() / len(right)),
        confidence=float(confidence.mean()),
        bins=tuple(
            Bin(
                float(edges[i]),
                float(edges[i + 1]),
                int(images[i]),
                float(sure[i] / images[i]) if images[i] else None,
                float(hits[i] / images[i]) if images[i] else None,
            )
            for i in range(BINS)
        ),
    )


def curve(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Curve:
    """Accuracy against coverage: El-Yaniv and Wiener, JMLR 11, 2010, with 1 - accuracy as the risk.

    Images of equal confidence count together or not at all, as they do for a least confidence.

    Args:
        labels: As in `calibration`.
        probabilities: As there.

    Raises:
        ValueError: As there.
    """
    confidence, right = _predicted(labels, probabilities)
    order = np.argsort(-confidence, kind="stable")
    falling, hits = confidence[order], right[order].cumsum()
    (last,) = np.nonzero(np.append(np.diff(falling) < 0, True))
    return Curve(falling[last], last + 1, hits[last] / (last + 1))


def coverage(found: Curve) -> tuple[Covered, ...]:
    """The points of a curve at which `COVERAGES` are reached."""
    total = int(found.images[-1])

    def at(asked: float) -> Covered:
        # Rounded up, whatever 0.7 times 10 is in binary.
        wanted = max(1, int(np.ceil(round(asked * total, 6))))
        place = int(np.searchsorted(found.images, wanted))
        images = int(found.images[place])
        return Covered(
            asked,
            images / total,
            images,
            float(found.confidence[place]),
            float(found.accuracy[place]),
        )

    return tuple(map(at, COVERAGES))


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature that makes a model as sure as it is right.

    Temperature scaling: section 4.2 of Guo et al., On Calibration of Modern Neural Networks, 2017,
    https://arxiv.org/abs/1706.04599. It moves no prediction.

    Args:
        logits: Of shape (n, classes), n and classes at least 1; of images that the model was not
            trained on.
        labels: The true classes, whole numbers in 0..classes-1, of shape (n,).

    Returns:
        The T in `TEMPERATURES` at which the mean cross-entropy of softmax(logits / T) is least. It
        has one least value there, because it is convex in 1 / T. Where every image is right by any
        margin, that is the lowest T; where no T is better than another (the logits of every image
        are all equal), it is 1.

    Raises:
        ValueError: The arrays are empty, do not fit each other, or hold labels or logits that are
            none.
    """
    truth, given = checked_logits(labels, logits)
    own = np.arange(len(truth)), truth
    if not np.ptp(given, axis=1).any():
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(given / np.exp(log_temperature), axis=1)[own].mean())

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    # The search comes near a bound, and never onto it; and a loss that is flat there, such as one
    # of 0, leaves it anywhere.
    best = min((low, high, found.x), key=loss)
    return float(np.clip(np.exp(best), *TEMPERATURES))


def _predicted(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """How sure each prediction is, and whether it is right."""
    truth, given = checked_probabilities(labels, probabilities)
    return given.max(axis=1), predictions(given) == truth
