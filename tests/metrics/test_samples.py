import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.metrics.samples import MAX_IMAGES, EvaluatedImages, SampleSelector, TopK

CLASSES = ("angry", "happy", "sad")
fast = settings(max_examples=60, deadline=None)


def make_images(rows: int, seed: int = 0, first: int = 0) -> EvaluatedImages:
    """Return different images with few different probabilities, so that there are ties."""
    random = np.random.default_rng(seed)
    weights = random.integers(1, 4, (rows, len(CLASSES)))
    return EvaluatedImages.from_batch(
        first,
        np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2),
        (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32),
        {
            "label": random.integers(len(CLASSES), size=rows).astype(np.int32),
            "source": np.array([f"{row % 3}.csv" for row in range(rows)], object),
            "record": 1000 - np.arange(rows),
            "variant": np.array(["original", "flip"], object)[np.arange(rows) % 2],
        },
    )


def are_equal(images: EvaluatedImages, expected: EvaluatedImages) -> bool:
    return all(
        np.array_equal(getattr(images, field.name), getattr(expected, field.name))
        for field in dataclasses.fields(EvaluatedImages)
    )


def fill_selector(
    images: EvaluatedImages, batch: int, image: int | None = None, seed: int = 0
) -> SampleSelector:
    selector = SampleSelector(CLASSES, seed, image)
    for start in range(0, len(images), batch):
        selector.update(images.take(np.arange(start, min(start + batch, len(images)))))
    return selector


def select_best(
    images: EvaluatedImages, scores: np.ndarray, is_candidate: np.ndarray, count: int
) -> EvaluatedImages:
    """Return the best images by sorting all candidates; the first of equals first."""
    rows = sorted(np.flatnonzero(is_candidate), key=lambda row: (-scores[row], row))
    return images.take(np.array(rows[:count], int))


class TestEvaluatedImages:
    def test_the_prediction_is_the_first_of_the_largest_probabilities(self):
        probabilities = np.array([[0.5, 0.5, 0], [0.1, 0.2, 0.7]], np.float32)
        evaluated = dataclasses.replace(
            make_images(2), probabilities=probabilities, label=np.array([0, 1], np.int32)
        )
        assert evaluated.predicted_label.tolist() == [0, 2]
        assert evaluated.confidence.tolist() == [0.5, np.float32(0.7)]
        assert evaluated.is_wrong.tolist() == [False, True]

    def test_the_images_of_a_batch_are_numbered_from_its_first_row(self):
        assert make_images(3, first=40).row.tolist() == [40, 41, 42]


class TestTopK:
    @fast
    @given(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), max_size=40),
        st.integers(1, 12),
        st.integers(0, 6),
    )
    def test_the_images_equal_the_first_ones_after_sorting(self, scores, batch, count):
        images, score_array = make_images(len(scores)), np.array(scores)
        top = TopK(count)
        top.update(images.take(np.arange(0)), score_array[:0])
        for start in range(0, len(images), batch):
            part = np.arange(start, min(start + batch, len(images)))
            top.update(images.take(part), score_array[part])
        assert are_equal(
            top.images, select_best(images, score_array, ~np.isnan(score_array), count)
        )

    def test_images_are_unavailable_before_the_first_update(self):
        with pytest.raises(ValueError, match="no image was added"):
            _ = TopK(3).images


class TestSampleSelector:
    @fast
    @given(st.integers(1, 120), st.integers(1, 50), st.integers(0, 99))
    def test_the_selected_images_equal_the_first_ones_after_sorting(self, rows, batch, seed):
        images = make_images(rows, seed)
        selector = fill_selector(images, batch)
        wrong, confidence = images.is_wrong, images.confidence
        assert are_equal(selector.mistakes, select_best(images, confidence, wrong, MAX_IMAGES))
        for label in range(len(CLASSES)):
            in_class = images.label == label
            assert are_equal(
                selector.get_best_correct_image(label),
                select_best(images, confidence, in_class & ~wrong, 1),
            )
            assert are_equal(
                selector.get_worst_mistake(label),
                select_best(images, confidence, in_class & wrong, 1),
            )
        candidates = ~wrong if (~wrong).any() else wrong
        assert are_equal(selector.inspected_image, select_best(images, confidence, candidates, 1))

    @fast
    @given(st.integers(1, 120), st.integers(1, 50), st.integers(1, 50))
    def test_examples_are_the_same_in_batches_of_any_size(self, rows, batch, second_batch):
        images = make_images(rows)
        examples = fill_selector(images, batch).examples
        assert are_equal(examples, fill_selector(images, second_batch).examples)
        assert len(examples) == min(rows, MAX_IMAGES)
        assert are_equal(examples, images.take(examples.row))
        assert (np.diff(examples.row) > 0).all()

    def test_examples_are_sampled_uniformly(self):
        images = make_images(100)
        sampled_rows = [fill_selector(images, 30, seed=seed).examples.row for seed in range(400)]
        counts = np.bincount(np.concatenate(sampled_rows), minlength=100)
        # 400 * 25 / 100 = 100 each, with a deviation of sqrt(400 * 1/4 * 3/4) = 8.7.
        assert 60 < counts.min() < counts.max() < 140

    @pytest.mark.parametrize("row", [0, 41, 99])
    def test_the_requested_image_is_inspected(self, row):
        images = make_images(100)
        assert are_equal(
            fill_selector(images, 7, image=row).inspected_image, images.take(np.array([row]))
        )

    def test_the_selected_images_are_copies(self):
        batch = make_images(50)
        selector = fill_selector(batch, 50)
        for selected in (
            selector.examples,
            selector.mistakes,
            selector.inspected_image,
            selector.get_best_correct_image(0),
        ):
            assert not np.shares_memory(selected.pixels, batch.pixels)

    def test_images_with_nan_probabilities_are_no_mistakes(self):
        images = make_images(4)
        images_without_predictions = dataclasses.replace(
            images, probabilities=images.probabilities * np.nan
        )
        assert len(fill_selector(images_without_predictions, 4).mistakes) == 0
