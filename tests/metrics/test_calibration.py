import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from fer_pipeline.metrics.calibration import (
    COVERAGES,
    Bin,
    CoveragePoint,
    compute_accuracy_coverage_curve,
    fit_temperature,
    measure_calibration,
    select_coverage_points,
)

BOUNDS = (0.05, 20.0)

# At the temperature with the least loss, 8.6, the loss in float32 is wrong by 1e-7.
ROUNDING_SENSITIVE = (
    np.array(
        [[0.25, -0.5], [-1, -0.5], [0.25, -1], [0.25, 0], [0.25, 0], [-1, -0.5], [0.25, -1]],
        np.float32,
    ),
    np.array([1, 0, 0, 1, 1, 0, 0]),
)


def compute_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    # In float32 the rounding errors of the loss are larger than the tolerance of the tests.
    log_probabilities = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


@st.composite
def logits_and_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels, often with equal logits, and with all right or all wrong."""
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    logit = st.sampled_from([-8.0, -1.0, -0.5, 0.0, 0.0, 0.25, 1.0, 30.0])
    row = st.lists(logit, min_size=classes, max_size=classes)
    logits = np.array(draw(st.lists(row, min_size=n, max_size=n)), np.float32)
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    kind = draw(st.sampled_from(["any", "right", "wrong"]))
    if kind != "any":
        labels = (logits.argmax if kind == "right" else logits.argmin)(axis=1)
    return logits, labels


class TestTemperature:
    @pytest.mark.parametrize(
        ("logits", "labels", "message"),
        [
            ([], [], r"got \(0,\) and \(0,\)"),
            ([[1.0, 2.0]], [0, 1], r"got \(2,\) and \(1, 2\)"),
            ([[1.0, 2.0]], [[0]], r"got \(1, 1\) and \(1, 2\)"),
            ([[1.0, 2.0]], [2], r"whole numbers in 0\.\.1"),
            ([[1.0, 2.0]], [-1], r"whole numbers in 0\.\.1"),
            ([[1.0, 2.0]], [0.0], r"whole numbers in 0\.\.1"),
            ([[1.0, np.nan]], [0], "expected logits, got values that are not finite"),
            ([[1.0, np.inf]], [0], "expected logits, got values that are not finite"),
        ],
    )
    def test_invalid_labels_and_predictions_are_refused(self, logits, labels, message):
        with pytest.raises(ValueError, match=message):
            fit_temperature(logits, np.array(labels), BOUNDS)

    @pytest.mark.parametrize("expected", [0.3, 1.0, 2.5])
    def test_the_temperature_of_scaled_logits_is_found(self, expected):
        random = np.random.default_rng(3)
        logits = 2 * random.standard_normal((60_000, 7))
        odds = softmax(logits, axis=1).cumsum(axis=1)
        labels = (random.random((len(logits), 1)) > odds).sum(axis=1)
        assert fit_temperature(expected * logits, labels, BOUNDS) == pytest.approx(
            expected, rel=0.03
        )

    def test_the_temperature_equals_that_computed_by_hand(self):
        # 3 of 4 are right, all by a margin of 2: sigmoid(2 / T) = 3 / 4.
        logits = np.array([[0, 2], [0, 2], [2, 0], [2, 0]], np.float32)
        assert fit_temperature(logits, np.array([1, 1, 0, 1]), BOUNDS) == pytest.approx(
            2 / np.log(3)
        )

    @pytest.mark.parametrize(
        ("logits", "labels", "temperature"),
        [
            ([[0, 1], [1, 0]], [1, 0], BOUNDS[0]),  # all right
            ([[0, 1000], [1000, 0]], [1, 0], BOUNDS[0]),  # at any T the loss is 0
            ([[0, 1]], [1], BOUNDS[0]),
            ([[0, 1]], [0], BOUNDS[1]),  # all wrong
            ([[0, 1], [0, 1]], [0, 1], BOUNDS[1]),  # right by chance
            ([[5, 5, 5], [0, 0, 0]], [2, 1], 1.0),
            ([[5]], [0], 1.0),
        ],
    )
    def test_without_a_minimum_of_the_loss_the_temperature_is_within_bounds(
        self, logits, labels, temperature
    ):
        assert fit_temperature(logits, np.array(labels), BOUNDS) == pytest.approx(temperature)

    @example(ROUNDING_SENSITIVE)
    @settings(max_examples=150, deadline=None)
    @given(logits_and_labels())
    def test_no_other_temperature_has_a_lower_loss(self, case):
        logits, labels = case
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            temperature = fit_temperature(logits, labels, BOUNDS)
        assert BOUNDS[0] <= temperature <= BOUNDS[1]
        candidates = np.geomspace(*BOUNDS, 200)
        least = min(compute_loss(logits, labels, candidate) for candidate in candidates)
        assert compute_loss(logits, labels, temperature) <= least + 1e-9


def make_predictions(confidence: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities of three classes with these confidences."""
    confidences = np.array(confidence)
    probabilities = np.stack([confidences, (1 - confidences) / 2, (1 - confidences) / 2], axis=1)
    return np.where(right, 0, 2), probabilities


@st.composite
def labels_and_probabilities(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and float32 probabilities, often of equal confidence."""
    n, classes = draw(st.integers(1, 25)), draw(st.integers(2, 5))
    weight = st.lists(st.sampled_from([0, 1, 1, 2, 7]), min_size=classes, max_size=classes)
    weights = np.array(draw(st.lists(weight.filter(any), min_size=n, max_size=n)), np.float32)
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return np.array(labels), weights / weights.sum(axis=1, keepdims=True)


class TestCalibration:
    def test_invalid_labels_and_predictions_are_refused(self):
        with pytest.raises(ValueError, match="rows that do not add up to 1"):
            measure_calibration(np.array([0]), [[2.0, 3.0]])
        with pytest.raises(ValueError, match=r"got \(0,\) and \(0, 2\)"):
            measure_calibration([], np.zeros((0, 2)))

    def test_by_hand(self):
        # 0.6 = 9/15 is in the bin that it ends; one of two is right there.
        calibration = measure_calibration(*make_predictions([0.6, 0.55, 0.95], [True, False, True]))
        assert calibration.error == pytest.approx((abs(1 - 1.15) + abs(1 - 0.95)) / 3)
        assert calibration.confidence == pytest.approx(0.7)
        filled = {8: (2, 0.575, 0.5), 14: (1, 0.95, 1.0)}
        assert calibration.bins == tuple(
            Bin(i / 15, (i + 1) / 15, *filled.get(i, (0, None, None))) for i in range(15)
        )

    def test_a_confidence_above_one_by_rounding_is_in_the_last_bin(self):
        calibration = measure_calibration([0], [[1.004, 0.0]])
        assert calibration.bins[-1].image_count == 1

    @settings(max_examples=60, deadline=None)
    @given(labels_and_probabilities())
    def test_every_image_is_counted_in_one_bin(self, case):
        labels, probabilities = case
        calibration = measure_calibration(labels, probabilities)
        confidence = probabilities.max(axis=1).astype(np.float64)
        right = probabilities.argmax(axis=1) == labels
        error = 0.0
        for confidence_bin in calibration.bins:
            inside = (confidence > confidence_bin.low) & (confidence <= confidence_bin.high)
            assert confidence_bin.image_count == inside.sum()
            if confidence_bin.image_count:
                assert confidence_bin.accuracy == pytest.approx(right[inside].mean())
                assert confidence_bin.confidence == pytest.approx(confidence[inside].mean())
                error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        assert sum(confidence_bin.image_count for confidence_bin in calibration.bins) == len(labels)
        assert calibration.error == pytest.approx(error)
        assert abs(right.mean() - calibration.confidence) <= calibration.error + 1e-12

    def test_confidence_that_equals_the_accuracy_has_no_error(self):
        random = np.random.default_rng(0)
        probabilities = random.dirichlet(np.ones(5), 100_000)
        labels = (random.random((len(probabilities), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
        assert measure_calibration(labels, probabilities).error < 0.01


class TestCoverage:
    def test_by_hand(self):
        # The two of 0.75 count together, whatever their order.
        curve = compute_accuracy_coverage_curve(
            *make_predictions([0.75, 0.5, 0.875, 0.75], [False, False, True, True])
        )
        assert curve.confidence.tolist() == [0.875, 0.75, 0.5]
        assert curve.image_counts.tolist() == [1, 3, 4]
        assert curve.accuracy.tolist() == [1.0, 2 / 3, 0.5]
        assert select_coverage_points(curve) == (
            CoveragePoint(1.0, 1.0, 4, 0.5, 0.5),
            CoveragePoint(0.9, 1.0, 4, 0.5, 0.5),
            CoveragePoint(0.8, 1.0, 4, 0.5, 0.5),
            CoveragePoint(0.7, 0.75, 3, 0.75, 2 / 3),
            CoveragePoint(0.5, 0.75, 3, 0.75, 2 / 3),
        )

    def test_a_coverage_of_a_whole_number_of_images_is_not_rounded_up(self):
        confidences = np.linspace(0.5, 0.9, 100)
        points = select_coverage_points(
            compute_accuracy_coverage_curve(*make_predictions(confidences.tolist(), [True] * 100))
        )
        assert [point.image_count for point in points] == [100, 90, 80, 70, 50]

    @settings(max_examples=80, deadline=None)
    @given(labels_and_probabilities())
    def test_the_minimum_confidence_gives_the_stated_coverage_and_accuracy(self, case):
        labels, probabilities = case
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        points = select_coverage_points(compute_accuracy_coverage_curve(labels, probabilities))
        assert tuple(point.requested for point in points) == COVERAGES
        for point in points:
            is_covered = confidence >= np.float32(point.min_confidence)
            assert point.image_count == is_covered.sum()
            assert point.coverage == is_covered.mean() >= point.requested - 1e-9
            assert point.accuracy == pytest.approx(right[is_covered].mean())
            # The next higher confidence leaves fewer images than requested.
            assert (confidence > np.float32(point.min_confidence)).mean() < point.requested
