import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.metrics.samples import MAX_IMAGES, EvaluatedImages, SampleSelector, TopK

CLASSES = ("angry", "happy", "sad")
fast = settings(max_examples=60, deadline=None)


def faces(rows: int, seed: int = 0, first: int = 0) -> EvaluatedImages:
    """Images of which no two are alike, with few different probabilities: there are ties."""
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


def same(found: EvaluatedImages, expected: EvaluatedImages) -> bool:
    return all(
        np.array_equal(getattr(found, field.name), getattr(expected, field.name))
        for field in dataclasses.fields(EvaluatedImages)
    )


def filled(
    every: EvaluatedImages, batch: int, image: int | None = None, seed: int = 0
) -> SampleSelector:
    gallery = SampleSelector(CLASSES, seed, image)
    for start in range(0, len(every), batch):
        gallery.update(every.take(np.arange(start, min(start + batch, len(every)))))
    return gallery


def best(
    every: EvaluatedImages, scores: np.ndarray, wanted: np.ndarray, count: int
) -> EvaluatedImages:
    """By brute force: all that is wanted, sorted; the first of equals first."""
    rows = sorted(np.flatnonzero(wanted), key=lambda row: (-scores[row], row))
    return every.take(np.array(rows[:count], int))


class TestFaces:
    def test_what_is_said_of_them(self):
        probabilities = np.array([[0.5, 0.5, 0], [0.1, 0.2, 0.7]], np.float32)
        found = dataclasses.replace(
            faces(2), probabilities=probabilities, label=np.array([0, 1], np.int32)
        )
        assert found.predicted_label.tolist() == [0, 2]
        assert found.confidence.tolist() == [0.5, np.float32(0.7)]
        assert found.is_wrong.tolist() == [False, True]

    def test_those_of_a_batch_are_numbered_from_its_first_row(self):
        assert faces(3, first=40).row.tolist() == [40, 41, 42]


class TestBest:
    @fast
    @given(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), max_size=40),
        st.integers(1, 12),
        st.integers(0, 6),
    )
    def test_are_those_of_a_sort(self, scores, batch, count):
        every, values = faces(len(scores)), np.array(scores)
        kept = TopK(count)
        kept.update(every.take(np.arange(0)), values[:0])
        for start in range(0, len(every), batch):
            part = np.arange(start, min(start + batch, len(every)))
            kept.update(every.take(part), values[part])
        assert same(kept.images, best(every, values, ~np.isnan(values), count))

    def test_of_nothing_is_no_answer(self):
        with pytest.raises(ValueError, match="no image was added"):
            _ = TopK(3).images


class TestGallery:
    @fast
    @given(st.integers(1, 120), st.integers(1, 50), st.integers(0, 99))
    def test_chooses_as_a_sort_of_all_images_would(self, rows, batch, seed):
        every = faces(rows, seed)
        found = filled(every, batch)
        wrong, confidence = every.is_wrong, every.confidence
        assert same(found.mistakes, best(every, confidence, wrong, MAX_IMAGES))
        for label in range(len(CLASSES)):
            here = every.label == label
            assert same(found.best_recognition(label), best(every, confidence, here & ~wrong, 1))
            assert same(found.worst_mistake(label), best(every, confidence, here & wrong, 1))
        right = ~wrong if (~wrong).any() else wrong
        assert same(found.inspected_image, best(every, confidence, right, 1))

    @fast
    @given(st.integers(1, 120), st.integers(1, 50), st.integers(1, 50))
    def test_examples_are_the_same_in_batches_of_any_size(self, rows, batch, other):
        every = faces(rows)
        found = filled(every, batch).examples
        assert same(found, filled(every, other).examples)
        assert len(found) == min(rows, MAX_IMAGES)
        assert same(found, every.take(found.row))
        assert (np.diff(found.row) > 0).all()

    def test_examples_are_drawn_uniformly(self):
        every = faces(100)
        drawn = [filled(every, 30, seed=seed).examples.row for seed in range(400)]
        counts = np.bincount(np.concatenate(drawn), minlength=100)
        # 400 * 25 / 100 = 100 each, with a deviation of sqrt(400 * 1/4 * 3/4) = 8.7.
        assert 60 < counts.min() < counts.max() < 140

    @pytest.mark.parametrize("row", [0, 41, 99])
    def test_the_subject_that_is_asked_for(self, row):
        every = faces(100)
        assert same(filled(every, 7, image=row).inspected_image, every.take(np.array([row])))

    def test_keeps_no_batch_alive(self):
        batch = faces(50)
        found = filled(batch, 50)
        for shown in (
            found.examples,
            found.mistakes,
            found.inspected_image,
            found.best_recognition(0),
        ):
            assert not np.shares_memory(shown.pixels, batch.pixels)

    def test_predictions_that_are_none_are_no_mistakes(self):
        every = faces(4)
        nothing = dataclasses.replace(every, probabilities=every.probabilities * np.nan)
        assert len(filled(nothing, 4).mistakes) == 0
