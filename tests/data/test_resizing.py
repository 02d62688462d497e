import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.image_preparation import resize


def compute_covered_areas(length: int, size: int) -> np.ndarray:
    """Return the part of each resized pixel that each source pixel covers: (size, length)."""
    edges = np.arange(size + 1) * length / size
    source = np.arange(length)
    covered = np.minimum(edges[1:, None], source + 1) - np.maximum(edges[:-1, None], source)
    return np.clip(covered, 0, 1) * size / length


def compute_linear_weights(length: int, size: int) -> np.ndarray:
    """Return the weights of the two source pixels around each resized pixel: (size, length)."""
    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(length)), 0, 1)


def make_noise(height: int, width: int, seed: int) -> np.ndarray:
    """Return a random image; with an odd seed it is black and white, which shows rounding most."""
    values = [0, 255] if seed % 2 else range(256)
    return np.random.default_rng(seed).choice(values, (height, width)).astype(np.uint8)


seeds = st.integers(0, 1000)


@given(st.integers(8, 48), st.integers(0, 60), st.integers(0, 60), seeds)
@settings(deadline=None)
def test_shrinking_averages_the_covered_area_and_rounds_once(size, taller, wider, seed):
    image = make_noise(size + taller, size + wider, seed)
    exact = (
        compute_covered_areas(size + taller, size)
        @ image
        @ compute_covered_areas(size + wider, size).T
    )
    resized = resize(image, size)
    assert (resized.shape, resized.dtype) == ((size, size), np.dtype(np.uint8))
    assert np.abs(resized - exact).max() <= 0.5 + 1e-3


@given(st.integers(8, 64), st.integers(1, 63), st.integers(1, 90), seeds)
@settings(deadline=None)
def test_enlarging_is_linear(size, height, width, seed):
    height = min(height, size - 1)
    image = make_noise(height, width, seed)
    for turned in (image, image.T):
        exact = (
            compute_linear_weights(turned.shape[0], size)
            @ turned
            @ compute_linear_weights(turned.shape[1], size).T
        )
        resized = resize(turned, size)
        assert (resized.shape, resized.dtype) == ((size, size), np.dtype(np.uint8))
        assert np.abs(resized - exact).max() < 1


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 48), (20, 30, 48), (24, 24, 48)])
def test_enlarging_rounds_once(height, width, size):
    for seed in range(10):
        image = make_noise(height, width, seed)
        exact = compute_linear_weights(height, size) @ image @ compute_linear_weights(width, size).T
        assert np.abs(resize(image, size) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [8, 28, 48])
def test_an_image_of_the_size_stays_as_it_is(size):
    image = make_noise(size, size, 0)
    np.testing.assert_array_equal(resize(image, size), image)


def test_an_image_of_one_grey_level_keeps_it_at_any_size():
    for level in (0, 1, 127, 254, 255):
        for shape in ((1, 1), (5, 90), (28, 28), (48, 48), (200, 100)):
            resized = resize(np.full(shape, level, np.uint8), 48)
            np.testing.assert_array_equal(resized, np.full((48, 48), level))


def test_a_view_of_a_larger_array_is_resized_like_its_copy():
    image = make_noise(96, 192, 0)
    expected = resize(np.ascontiguousarray(image[:, ::2]), 48)
    np.testing.assert_array_equal(resize(image[:, ::2], 48), expected)
