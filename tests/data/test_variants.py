import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.variants import (
    BORDERS,
    create_horizontal_flip,
    create_rotation,
    create_variants,
)

SIZES = [8, 9, 28, 48, 49]


def make_noise(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (count, size, size), np.uint8)


def rotate_with_opencv(images: np.ndarray, angle: float, border: str) -> np.ndarray:
    """Rotate each image with one plain call of OpenCV."""
    size = images.shape[1]
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1)
    return np.stack(
        [
            cv2.warpAffine(
                image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=BORDERS[border]
            )
            for image in images
        ]
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", BORDERS)
def test_a_rotation_equals_a_warp_about_the_centre(size, border):
    images = make_noise(size)
    for angle in (10, -10, 7.5, 45, 133.3, -359):
        expected = rotate_with_opencv(images, angle, border)
        np.testing.assert_array_equal(create_rotation(angle, border, size)(images), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3), (-90, -1), (-270, 1)])
def test_quarter_turns_are_exact_and_counter_clockwise(size, border, angle, turns):
    images = make_noise(size)
    expected = np.rot90(images, turns, axes=(1, 2))
    np.testing.assert_array_equal(create_rotation(angle, border, size)(images), expected)


@given(
    st.floats(-359, 359),
    st.sampled_from(SIZES),
    st.floats(-1.5, 1.5),
    st.floats(-1.5, 1.5),
    st.sampled_from(sorted(BORDERS)),
)
@settings(deadline=None)
def test_a_rotated_slope_is_the_slope_of_the_rotated_coordinates(angle, size, across, down, border):
    """Bilinear interpolation is exact on a slope, so this needs no OpenCV to compare with."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    image = np.rint(128 + across * x + down * y).clip(0, 255).astype(np.uint8)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    # Where a pixel comes from; rows grow downwards, so counter-clockwise looks turned round.
    from_x, from_y = cos * x - sin * y, sin * x + cos * y
    inside = np.maximum(np.abs(from_x), np.abs(from_y)) <= (size - 1) / 2 - 1
    expected = np.clip(128 + across * from_x + down * from_y, 0, 255)
    rotated = create_rotation(angle, border, size)(image[None])[0]
    # Two roundings of the grey value, and coordinates to 1/32 pixel.
    allowed = 1 + (abs(across) + abs(down)) / 32
    assert np.abs(rotated - expected)[inside].max() <= allowed


def test_borders_are_black_or_the_nearest_or_the_mirrored_pixels():
    white = np.full((1, 28, 28), 255, np.uint8)
    corners = (0, [0, 0, -1, -1], [0, -1, 0, -1])
    assert create_rotation(45, "constant", 28)(white)[corners].tolist() == [0] * 4
    assert (create_rotation(45, "replicate", 28)(white) == 255).all()
    assert (create_rotation(45, "reflect", 28)(white) == 255).all()
    # A white rim one pixel wide: the nearest pixel outside is white, the mirror image is black.
    framed = np.pad(np.zeros((1, 26, 26), np.uint8), ((0, 0), (1, 1), (1, 1)), constant_values=255)
    assert create_rotation(45, "replicate", 28)(framed)[corners].tolist() == [255] * 4
    assert create_rotation(45, "reflect", 28)(framed)[corners].tolist() == [0] * 4


def test_a_flip_swaps_left_and_right_only():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    expected = [[list(reversed(row)) for row in image[0].tolist()]]
    assert create_horizontal_flip()(image).tolist() == expected


def test_variants_come_in_order_and_apply_what_their_names_say():
    images = make_noise(28)
    variants = create_variants(True, [10, -10.0, 7.5, -7.5], "replicate", 28)
    assert [variant.name for variant in variants] == [
        "original",
        "flip",
        "rotate+10",
        "rotate-10",
        "rotate+7.5",
        "rotate-7.5",
    ]
    expected = [
        images,
        images[:, :, ::-1],
        *(rotate_with_opencv(images, angle, "replicate") for angle in (10, -10, 7.5, -7.5)),
    ]
    for variant, array in zip(variants, expected, strict=True):
        np.testing.assert_array_equal(variant.apply(images), array)


def test_without_flip_and_rotations_only_the_original_is_left():
    assert [variant.name for variant in create_variants(False, [], "constant", 28)] == ["original"]


@pytest.mark.parametrize("angles", [(22.5, 22.50001), (0.1234567, 0.1234568), (123.4567, 123.4568)])
def test_different_angles_have_different_names(angles):
    names = [variant.name for variant in create_variants(False, angles, "constant", 28)]
    assert len(set(names)) == 3


@pytest.mark.parametrize("border", BORDERS)
def test_variants_leave_their_input_unchanged_whatever_its_memory_layout(border):
    images = make_noise(28)
    before = images.copy()
    for variant in create_variants(True, [10, 90], border, 28):
        mirrored = variant.apply(images[:, :, ::-1])
        np.testing.assert_array_equal(mirrored, variant.apply(images[:, :, ::-1].copy()))
        alone = np.concatenate([variant.apply(images[k : k + 1]) for k in range(len(images))])
        np.testing.assert_array_equal(variant.apply(images), alone)
        assert variant.apply(images[:0]).shape == (0, 28, 28)
    np.testing.assert_array_equal(images, before)
