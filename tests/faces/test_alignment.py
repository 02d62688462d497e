"""Alignment of faces, and the measurement of their quality."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.faces.alignment import REFERENCE, align_face
from fer_pipeline.faces.detectors import DetectorOptions
from fer_pipeline.faces.photographs import find_faces
from fer_pipeline.faces.quality import measure_quality
from tests.helpers import portraits

SIZE = 48


def draw_gradient(size: int = SIZE) -> portraits.Picture:
    """Return a picture whose value tells the place: smooth waves."""
    x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    return (128 + 60 * np.sin(5 * x) + 60 * np.cos(4 * y)).astype(np.uint8)


def test_a_face_at_the_reference_positions_is_not_changed() -> None:
    picture = draw_gradient()
    aligned, side = align_face(picture, REFERENCE * SIZE, SIZE)
    assert side == pytest.approx(SIZE)
    np.testing.assert_allclose(aligned.astype(int), picture.astype(int), atol=1)


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.8, 6),
    shift=st.tuples(st.floats(-40, 40), st.floats(-40, 40)),
)
def test_rotation_size_and_position_are_undone(
    degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    picture = draw_gradient()
    angle = np.radians(degrees)
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, SIZE / 2)
    center = np.array([250.0, 250.0]) + shift
    landmarks = ((REFERENCE * SIZE - middle) @ rotation.T + center).astype(np.float32)
    # The centre of the first pixel is at 0.5, and OpenCV has it at 0.
    offset = center - rotation @ (middle - 0.5) - 0.5
    matrix = np.hstack([rotation, offset[:, None]])
    scene = cv2.warpAffine(picture, matrix, (500, 500), borderMode=cv2.BORDER_REPLICATE)
    aligned, side = align_face(scene, landmarks, SIZE)  # type: ignore[arg-type]
    assert side == pytest.approx(SIZE * scale, rel=1e-4)
    inner = slice(3, -3)
    difference = aligned[inner, inner].astype(int) - picture[inner, inner]
    assert np.abs(difference).max() <= 4


def test_the_eyes_of_a_photograph_come_to_the_reference_positions() -> None:
    for degrees in (-25, 0, 25):
        picture = portraits.rotate(portraits.load_astronaut(), degrees)
        faces = find_faces(picture, DetectorOptions())
        aligned, _ = align_face(picture, faces.landmarks[0], 192)
        again = find_faces(cv2.copyMakeBorder(aligned, *[96] * 4, 1), DetectorOptions())  # type: ignore[call-overload]
        eyes = (again.landmarks[0, :2] - 96) / 192
        np.testing.assert_allclose(eyes, REFERENCE[:2], atol=0.05)


def test_a_face_at_the_border_repeats_it() -> None:
    picture = np.full((20, 20), 90, np.uint8)
    aligned, _ = align_face(picture, REFERENCE * 40 - 30, SIZE)
    assert (aligned == 90).all()


def test_colours_become_the_grey_of_opencv() -> None:
    picture = portraits.load_astronaut()[60:180, 160:280]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    landmarks = REFERENCE * 120
    from_colours, _ = align_face(picture, landmarks, SIZE)
    from_grey, _ = align_face(grey, landmarks, SIZE)  # type: ignore[arg-type]
    np.testing.assert_allclose(from_colours.astype(int), from_grey.astype(int), atol=1)


def measure(picture: portraits.Picture) -> tuple[float, float, float, float]:
    """Return the quality of the only face of a picture."""
    faces = find_faces(picture, DetectorOptions())
    assert len(faces) == 1
    aligned, side = align_face(picture, faces.landmarks[0], SIZE)
    return measure_quality(aligned, faces.landmarks[0], side)


def test_a_clear_face_has_full_quality_and_a_small_one_less() -> None:
    astronaut = portraits.load_astronaut()
    assert measure(astronaut)[0] > 0.9
    small = measure(portraits.resize(astronaut, 0.25))
    assert small[0] == pytest.approx(0.25 * 105 / 48 / 0.88, abs=0.15)


def test_blur_costs_quality_and_sharpness() -> None:
    astronaut = portraits.load_astronaut()
    blurred = cv2.GaussianBlur(astronaut, (0, 0), 5)
    assert measure(blurred)[1] < 0.5 * measure(astronaut)[1]  # type: ignore[arg-type]
    assert measure(blurred)[0] < 0.7  # type: ignore[arg-type]


def test_roll_and_turn_are_those_of_the_landmarks() -> None:
    landmarks = np.array([[10, 10], [30, 30], [35, 25], [20, 40]], np.float32)
    quality = measure_quality(draw_gradient(), landmarks, 100)
    assert quality.roll == pytest.approx(45)
    # From the middle of the eyes (20, 20), the nose is 10 along the line between them.
    assert quality.turn == pytest.approx((15 * 20 + 5 * 20) / 800)
    assert quality.quality == 0  # turned by more than half
    flat = measure_quality(np.full((48, 48), 7, np.uint8), landmarks, 100)
    assert (flat.sharpness, flat.quality) == (0, 0)
