import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.faces.tracking import TrackingOptions, link_faces, smooth_probabilities


def make_boxes(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def collect_tracks(numbers: list[np.ndarray], boxes: list[np.ndarray]) -> set[frozenset]:
    """Return the tracks as sets of (frame, box)."""
    tracks = defaultdict(set)
    for frame, (frame_numbers, frame_boxes) in enumerate(zip(numbers, boxes, strict=True)):
        for number, box in zip(frame_numbers, frame_boxes, strict=True):
            tracks[number].add((frame, tuple(box.tolist())))
    return {frozenset(track) for track in tracks.values()}


class TestLinkFaces:
    def test_a_moving_face_keeps_its_track(self):
        times = [0.0, 0.5, 1.0, 1.5]
        boxes = [make_boxes((10 + 15 * i, 20, 50, 50)) for i in range(4)]
        assert [n.tolist() for n in link_faces(times, boxes)] == [[1], [1], [1], [1]]

    def test_new_tracks_are_numbered_from_left_to_right(self):
        boxes = [make_boxes((300, 0, 40, 40), (10, 0, 40, 40), (100, 0, 40, 40))]
        assert link_faces([0.0], boxes)[0].tolist() == [3, 1, 2]

    @pytest.mark.parametrize("step", [8, 20, 37, 50])
    @pytest.mark.parametrize("start", [0, 3, 10])
    def test_faces_that_cross_keep_their_tracks(self, step, start):
        # With steps as long as their distance, each of them comes to where the other one was.
        times = [0.1 * frame for frame in range(20)]
        boxes = [
            make_boxes(
                (start + step * frame, 100, 100, 100),
                (start + 19 * step - step * frame, 130, 90, 90),
            )
            for frame in range(20)
        ]
        assert {tuple(numbers.tolist()) for numbers in link_faces(times, boxes)} == {(1, 2)}

    def test_a_face_hidden_by_another_one_while_they_cross_keeps_its_track(self):
        times = [0.1 * frame for frame in range(20)]
        boxes = [
            make_boxes((30 * frame, 100, 100, 100), (19 * 30 - 30 * frame, 130, 90, 90))
            for frame in range(20)
        ]
        boxes[9], boxes[10] = boxes[9][:1], boxes[10][:1]
        numbers = link_faces(times, boxes)
        assert [n.tolist() for n in numbers[8:12]] == [[1, 2], [1], [1], [1, 2]]

    @pytest.mark.parametrize(("return_time", "number"), [(1.5, 1), (1.6, 2)])
    def test_a_face_may_be_missing_for_a_limited_time(self, return_time, number):
        box = make_boxes((10, 10, 50, 50))
        times = [0.0, 0.5, 1.0, return_time]
        boxes = [box, box, make_boxes(), box]
        options = TrackingOptions(max_gap=1.0)
        assert link_faces(times, boxes, options)[3].tolist() == [number]

    def test_a_face_of_the_frame_before_is_the_same_after_any_time(self):
        box = make_boxes((10, 10, 50, 50))
        assert [n.tolist() for n in link_faces([0.0, 60.0], [box, box])] == [[1], [1]]

    def test_a_face_that_leaves_ends_its_track_and_the_other_one_goes_on(self):
        both = make_boxes((10, 10, 50, 50), (200, 10, 50, 50))
        elsewhere = make_boxes((10, 300, 50, 50), (200, 10, 50, 50))
        times = [0.0, 0.5, 1.0, 1.5]
        numbers = link_faces(times, [both, both, both[1:], elsewhere])
        assert [n.tolist() for n in numbers] == [[1, 2], [1, 2], [2], [3, 2]]

    def test_a_face_that_stops_while_it_is_missing_is_found_where_it_was(self):
        times = [0.0, 0.1, 1.0]
        boxes = [make_boxes((x, 0, 60, 60)) for x in (0, 30, 40)]
        boxes.insert(2, make_boxes())
        times.insert(2, 0.5)
        assert link_faces(times, boxes)[3].tolist() == [1]

    def test_the_movement_is_that_of_time_and_not_of_frames(self):
        # 200 pixels per second, at times that are not regular; two faces side by side.
        times = [0.0, 0.1, 0.5, 0.6, 1.1]
        boxes = [
            make_boxes((200 * time, 0, 80, 80), (200 * time + 90, 0, 80, 80)) for time in times
        ]
        assert {tuple(n.tolist()) for n in link_faces(times, boxes)} == {(1, 2)}

    def test_no_frames_have_no_tracks(self):
        assert link_faces([], []) == []

    @given(st.data())
    def test_the_order_of_the_faces_does_not_change_the_tracks(self, example):
        # A coarse grid: equal overlaps and equal boxes occur.
        coordinates = st.sampled_from([0.0, 20.0, 40.0, 60.0])
        box = st.tuples(coordinates, coordinates, st.sampled_from([40.0, 60.0]), st.just(40.0))
        frames = example.draw(st.lists(st.lists(box, max_size=4), max_size=5))
        gaps = example.draw(
            st.lists(st.sampled_from([0.1, 0.7]), min_size=len(frames), max_size=len(frames))
        )
        times = list(itertools.accumulate(gaps))
        boxes = [make_boxes(*frame) for frame in frames]
        shuffled = [make_boxes(*example.draw(st.permutations(frame))) for frame in frames]
        numbers = link_faces(times, boxes)
        assert collect_tracks(numbers, boxes) == collect_tracks(
            link_faces(times, shuffled), shuffled
        )
        for frame_numbers in numbers:
            assert len(set(frame_numbers.tolist())) == len(frame_numbers)


def smooth_slowly(times: np.ndarray, probabilities: np.ndarray, half_width: float) -> np.ndarray:
    rows = []
    for time in times:
        distances = [abs(time - row_time) for row_time in times]
        weights = [
            (1 + np.cos(np.pi * distance / half_width)) / 2 if distance < half_width else 0
            for distance in distances
        ]
        rows.append(
            sum(w * row for w, row in zip(weights, probabilities, strict=True)) / sum(weights)
        )
    return np.array(rows)


@st.composite
def draw_track(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw the times and the probabilities of a track."""
    gaps = draw(st.lists(st.floats(0.001, 2), min_size=1, max_size=12))
    seed = draw(st.integers(0, 1000))
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), len(gaps))
    return np.cumsum(gaps), probabilities


class TestSmoothProbabilities:
    @given(draw_track(), st.floats(0.05, 3))
    def test_it_is_the_weighted_mean_of_the_definition(self, track, half_width):
        times, probabilities = track
        smoothed = smooth_probabilities(times, probabilities, half_width)
        np.testing.assert_allclose(smoothed, smooth_slowly(times, probabilities, half_width))
        np.testing.assert_allclose(smoothed.sum(axis=1), 1)

    @given(draw_track(), st.floats(0.05, 3))
    def test_it_is_symmetric_in_time(self, track, half_width):
        times, probabilities = track
        backwards = smooth_probabilities(-times[::-1], probabilities[::-1], half_width)
        forwards = smooth_probabilities(times, probabilities, half_width)
        np.testing.assert_allclose(backwards[::-1], forwards, atol=1e-12)

    def test_rows_at_the_edge_of_the_window_have_no_weight_whatever_the_rounding(self):
        times = np.linspace(0, 3.9, 40)
        impulse = np.zeros((40, 2))
        impulse[:, 0] = 1
        impulse[20] = [0, 1]
        response = smooth_probabilities(times, impulse, 0.3)[:, 1]
        assert np.count_nonzero(response > 1e-9) == 5
        np.testing.assert_allclose(response[15:20], response[25:20:-1], atol=1e-12)

    def test_the_time_counts_and_not_the_number_of_the_frame(self):
        probabilities = np.array([[1.0, 0], [0, 1], [1, 0]])
        near = smooth_probabilities(np.array([0.0, 0.1, 5.0]), probabilities, 1.0)
        assert near[2].tolist() == [1, 0]
        assert near[1, 0] == pytest.approx(0.5, abs=0.02)

    def test_no_width_changes_nothing(self):
        probabilities = np.array([[0.25, 0.75], [0.5, 0.5]])
        smoothed = smooth_probabilities(np.array([0.0, 0.1]), probabilities, 0)
        assert smoothed.tolist() == probabilities.tolist()
