"""Annotated copies: what is annotated where, and that it can be read."""

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.faces import annotation_layout as layout
from fer_pipeline.faces.annotation import AnnotatedFace, draw_faces, find_scale
from fer_pipeline.faces.emotion_colors import get_color

HAPPY = np.array([0.01, 0.02, 0.03, 0.83, 0.04, 0.05, 0.02])
FACE = (177, 67, 107, 107)
"""Box of the astronaut's face."""


def make_face(box: tuple[float, ...] = FACE, probabilities: np.ndarray = HAPPY) -> AnnotatedFace:
    return AnnotatedFace(np.array(box, np.float32), probabilities)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])


def find_color(image: np.ndarray, emotion: str) -> np.ndarray:
    """Return where an image has the colour of an emotion."""
    red, green, blue = bytes.fromhex(get_color(emotion, 0)[1:])
    return (image == (blue, green, red)).all(axis=2)


def find_changed_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what differs."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class TestDrawFaces:
    def test_the_image_itself_is_not_changed(self, astronaut):
        before = astronaut.copy()
        annotated = draw_faces(astronaut, [make_face()], FER2013)
        assert (astronaut == before).all()
        assert annotated.shape == astronaut.shape
        assert annotated.dtype == np.uint8
        assert (annotated != before).any()

    def test_without_faces_it_is_a_copy(self, astronaut):
        assert (draw_faces(astronaut, [], FER2013) == astronaut).all()

    def test_the_inside_of_the_face_stays_visible(self, astronaut):
        annotated = draw_faces(astronaut, [make_face()], FER2013)
        inside = np.s_[67 + 8 : 174 - 8, 177 + 8 : 284 - 8]
        assert (annotated[inside] == astronaut[inside]).all()

    def test_the_box_has_the_color_of_the_emotion(self, astronaut):
        is_happy = find_color(draw_faces(astronaut, [make_face()], FER2013), "happy")
        middle_row, middle_column = 67 + 53, 177 + 53
        for part in (
            is_happy[67:71, middle_column],
            is_happy[170:176, middle_column],
            is_happy[middle_row, 177:181],
            is_happy[middle_row, 280:286],
        ):
            assert part.any()

    def test_the_bars_are_as_long_as_the_probabilities(self):
        image = np.full((600, 600, 3), 90, np.uint8)
        halves = np.array([0.0, 0, 0, 0.5, 0.25, 0.25, 0])
        annotated = draw_faces(image, [make_face((100, 100, 100, 100), halves)], FER2013)
        lengths = {}
        for emotion in ("happy", "sad", "surprise"):
            # To the right of the box, inside of the outline of the panel.
            columns = np.nonzero(find_color(annotated[108:250, 215:400], emotion).sum(axis=0) > 3)[
                0
            ]
            lengths[emotion] = len(columns)
        assert lengths["sad"] == lengths["surprise"] > 10
        assert abs(lengths["happy"] - 2 * lengths["sad"]) <= 2

    def test_a_face_without_probabilities_has_a_box_and_its_note(self, astronaut):
        box = np.array(FACE, np.float32)
        plain = draw_faces(astronaut, [AnnotatedFace(box, None)], FER2013)
        noted = draw_faces(astronaut, [AnnotatedFace(box, None, "too blurred")], FER2013)
        left, top, right, bottom = find_changed_box(astronaut, plain)
        assert (left, top, right, bottom) == pytest.approx((177, 67, 285, 175), abs=4)
        assert find_changed_box(astronaut, noted)[1] < top - 10
        assert not any(find_color(noted, emotion).sum() > 50 for emotion in FER2013)

    def test_several_faces_keep_their_texts_apart(self):
        image = np.full((600, 900, 3), 90, np.uint8)
        boxes = [(100, 200, 100, 100), (400, 200, 100, 100), (700, 200, 100, 100)]
        faces = [
            make_face(box, np.roll(HAPPY, shift))
            for box, shift in zip(boxes, (0, 1, 2), strict=True)
        ]
        annotated = draw_faces(image, faces, FER2013)
        for box, emotion in zip(boxes, ("happy", "sad", "surprise"), strict=True):
            x, y, width, height = box
            assert (annotated[y + 8 : y + height - 8, x + 8 : x + width - 8] == 90).all()
            # Label and bars of each are annotated: much more than the box.
            assert find_color(annotated, emotion).sum() > 2000

    @pytest.mark.parametrize("box", [(-20, -30, 90, 90), (450, 460, 90, 90), (0, 0, 512, 512)])
    def test_faces_at_the_edges(self, astronaut, box):
        annotated = draw_faces(astronaut, [make_face(box)], FER2013)
        assert find_color(annotated, "happy").sum() > 500

    @pytest.mark.parametrize("size", [(48, 48), (96, 64), (3000, 40), (40, 900), (1500, 2000)])
    def test_the_texts_have_a_size_that_can_be_read(self, size):
        height, width = size
        image = np.full((height, width, 3), 128, np.uint8)
        face = make_face((0.2 * width, 0.3 * height, 0.5 * min(size), 0.5 * min(size)))
        annotated = draw_faces(image, [face], FER2013)
        scale = find_scale(width, height)
        assert annotated.shape == (height * scale, width * scale, 3)
        # The label is an area of the emotion's colour, as high as its text, and wider than the
        # lines of the box together.
        mean_size = np.sqrt(height * width) * scale
        is_label = find_color(annotated, "happy").sum(axis=1) > 10 + mean_size / 60
        rows = np.flatnonzero(is_label)
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
        # Where the image is narrow, the text is as wide as the image.
        smallest = 10 if width * scale < 200 else max(13, mean_size / 45)
        assert max(len(run) for run in runs) >= smallest

    @given(
        st.integers(20, 700),
        st.integers(20, 700),
        st.lists(
            st.tuples(
                st.floats(-100, 800), st.floats(-100, 800), st.floats(1, 500), st.floats(1, 500)
            ),
            max_size=4,
        ),
    )
    def test_any_boxes_can_be_drawn(self, width, height, boxes):
        image = np.zeros((height, width, 3), np.uint8)
        annotated = draw_faces(image, [make_face(box) for box in boxes], FER2013)
        scale = find_scale(width, height)
        assert annotated.shape == (height * scale, width * scale, 3)


class TestColors:
    def test_each_emotion_has_another_one(self):
        colors = [get_color(name, index) for index, name in enumerate((*FER2013, "contempt"))]
        assert len(set(colors)) == 8

    def test_unknown_classes_have_one_by_their_index(self):
        assert get_color("bored", 3) == get_color("happy", 0)

    @pytest.mark.parametrize("emotion", FER2013)
    def test_the_label_has_a_contrast_of_at_least_4_5(self, emotion):
        """The minimum of WCAG 2.2 for texts."""
        image = np.full((600, 600, 3), 128, np.uint8)
        probabilities = np.full(7, 0.05)
        probabilities[FER2013.index(emotion)] = 0.7
        box = (200, 200, 200, 200)
        annotated = draw_faces(image, [make_face(box, probabilities)], FER2013)
        label = annotated[170:192, 204:280].reshape(-1, 3)[:, ::-1]
        linear = np.where(label <= 10, label / 3294, ((label / 255 + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        background = np.median(luminance)
        contrasts = (np.maximum(luminance, background) + 0.05) / (
            np.minimum(luminance, background) + 0.05
        )
        assert contrasts.max() >= 4.5


class TestLayout:
    @given(
        st.tuples(st.floats(-50, 600), st.floats(-50, 600)),
        st.tuples(st.floats(1, 500), st.floats(1, 500)),
    )
    def test_places_are_moved_into_the_image(self, corner, size):
        place = (*corner, corner[0] + size[0], corner[1] + size[1])
        left, top, right, bottom = layout.move_inside(place, (512, 512))
        assert left >= 0
        assert top >= 0
        assert right <= 512 + 1e-9
        assert bottom <= 512 + 1e-9
        assert (right - left, bottom - top) == pytest.approx(size)

    def test_a_panel_stands_to_the_right_then_left_then_below(self):
        face = (200.0, 200.0, 300.0, 300.0)
        places = layout.list_panel_places(face, (150, 80), 5)
        image = (600.0, 600.0)
        right = layout.choose_free_place(places, image, [face])
        assert right == (305, 200, 455, 280)
        left = layout.choose_free_place(places, image, [face, (304, 0, 600, 600)])
        assert left == (45, 200, 195, 280)
        sides = [face, (304, 0, 600, 600), (0, 0, 196, 600)]
        below = layout.choose_free_place(places, image, sides)
        assert below is None
        below = layout.choose_free_place(
            places, image, [face, (304, 0, 600, 300), (0, 0, 196, 300)]
        )
        assert below == (200, 305, 350, 385)

    def test_of_places_that_cover_something_the_best_covers_the_least(self):
        places = [(0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)]
        occupied = [(0.0, 0.0, 5.0, 10.0), (29.0, 0.0, 40.0, 10.0)]
        assert layout.choose_best_place(places, (100, 100), occupied) == places[1]


def test_resizing_keeps_the_place_of_the_face():
    small = np.zeros((100, 100, 3), np.uint8)
    cv2.rectangle(small, (30, 40), (59, 69), (255, 255, 255), -1)
    annotated = draw_faces(small, [AnnotatedFace(np.array([30, 40, 30, 30]), None)], FER2013)
    scale = find_scale(100, 100)
    left, top, right, bottom = find_changed_box(
        np.kron(small, np.ones((scale, scale, 1), np.uint8)), annotated
    )
    assert (left, top, right, bottom) == pytest.approx(
        (30 * scale, 40 * scale, 60 * scale, 70 * scale), abs=8
    )
