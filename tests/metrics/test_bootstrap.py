import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.metrics import bootstrap
from fer_pipeline.metrics.bootstrap import Interval, compute_bootstrap_intervals


def get_ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


@st.composite
def image_counts(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Return the images and the correct images of each class; both are often 0."""
    actual_counts = draw(
        st.lists(st.sampled_from([0, 1, 2, 30, 500]), min_size=2, max_size=8).filter(any)
    )
    return actual_counts, [draw(st.integers(0, images)) for images in actual_counts]


@pytest.mark.parametrize(
    ("actual_counts", "correct_counts"),
    [([], []), ([0, 0], [0, 0]), ([3, 2], [4, 0]), ([3, 2], [-1, 0])],
)
def test_invalid_counts_are_refused(actual_counts, correct_counts):
    with pytest.raises(ValueError, match="expected 0 <= correct <= actual"):
        compute_bootstrap_intervals(actual_counts, correct_counts, 0)


def test_intervals_equal_those_of_resampling_single_images():
    actual_counts, correct_counts = [40, 9, 0, 151], [10, 6, 0, 120]
    labels = np.repeat(np.arange(4), actual_counts)
    is_correct = np.concatenate(
        [
            np.arange(images) < hits
            for images, hits in zip(actual_counts, correct_counts, strict=True)
        ]
    )
    index = np.random.default_rng(7).integers(0, 200, (20_000, 200))
    sampled_labels, is_hit = labels[index], is_correct[index]
    with np.errstate(invalid="ignore"):
        classes = np.stack(
            [
                (is_hit & (sampled_labels == label)).sum(1) / (sampled_labels == label).sum(1)
                for label in range(4)
            ]
        )
    low, high = np.nanpercentile(classes[[0, 1, 3]], [2.5, 97.5], axis=1)
    intervals = compute_bootstrap_intervals(actual_counts, correct_counts, 0)
    tolerance = 0.012
    assert get_ends(intervals.accuracy) == pytest.approx(
        np.percentile(is_hit.mean(1), [2.5, 97.5]), abs=tolerance
    )
    assert get_ends(intervals.mean_class_accuracy) == pytest.approx(
        np.percentile(np.nanmean(classes[[0, 1, 3]], axis=0), [2.5, 97.5]), abs=tolerance
    )
    assert get_ends(intervals.classes[0]) == pytest.approx((low[0], high[0]), abs=tolerance)
    # The accuracy of about 9 images has coarse steps.
    assert get_ends(intervals.classes[1]) == pytest.approx((low[1], high[1]), abs=0.05)
    assert intervals.classes[2] is None
    assert get_ends(intervals.classes[3]) == pytest.approx((low[2], high[2]), abs=tolerance)


def test_intervals_of_many_images_are_those_of_the_normal_distribution():
    intervals = compute_bootstrap_intervals([2000, 1589], [1500, 905], 1)
    accuracy = 2405 / 3589
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 3589)
    assert get_ends(intervals.accuracy) == pytest.approx(
        (accuracy - half, accuracy + half), abs=0.001
    )


def test_classes_that_are_all_right_or_all_wrong_have_intervals_without_width():
    intervals = compute_bootstrap_intervals([5, 3], [5, 0], 0)
    assert intervals.classes == (Interval(1, 1), Interval(0, 0))
    assert intervals.accuracy.low < 5 / 8 < intervals.accuracy.high


def test_intervals_depend_on_the_seed():
    first, second = (
        compute_bootstrap_intervals([90, 60], [40, 50], 3),
        compute_bootstrap_intervals([90, 60], [40, 50], 3),
    )
    assert first == second
    assert first.seed == 3
    assert (
        compute_bootstrap_intervals([901, 601], [401, 501], 4).accuracy
        != compute_bootstrap_intervals([901, 601], [401, 501], 3).accuracy
    )
    assert bootstrap.RESAMPLE_COUNT == 10_000


@settings(max_examples=40, deadline=None)
@given(image_counts(), st.integers(0, 2**31 - 1))
def test_every_interval_contains_the_measured_accuracy(case, seed):
    actual_counts, correct_counts = case
    intervals = compute_bootstrap_intervals(actual_counts, correct_counts, seed)
    assert [interval is None for interval in intervals.classes] == [
        not images for images in actual_counts
    ]
    class_intervals = [
        (interval, hits / images)
        for interval, images, hits in zip(
            intervals.classes, actual_counts, correct_counts, strict=True
        )
        if interval is not None
    ]
    for interval, accuracy in [
        *class_intervals,
        (intervals.accuracy, sum(correct_counts) / sum(actual_counts)),
    ]:
        assert 0 <= interval.low <= interval.high <= 1
        assert interval.low <= accuracy + 1e-12
        assert accuracy <= interval.high + 1e-12
