import numpy as np
import pytest

from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import prepare_images, resize

PLAIN = Enhancement()
EQUALIZED = Enhancement(equalize=True)


def make_images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width), np.uint8)


@pytest.mark.parametrize("enhancement", [PLAIN, EQUALIZED])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (30, 20), (9, 9)])
@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("selected", [[True] * 4, [True, False, True, False], [False] * 4])
def test_the_selected_images_are_enhanced_then_resized(
    enhancement, height, width, as_list, selected
):
    originals = make_images(4, height, width)
    before = originals.copy()
    batch = list(originals) if as_list else originals
    prepared = prepare_images(batch, np.array(selected), 12, enhancement)
    expected = [
        resize(enhance(image, enhancement), 12)
        for image, is_selected in zip(originals, selected, strict=True)
        if is_selected
    ]
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, np.array(expected, np.uint8).reshape(-1, 12, 12))
    np.testing.assert_array_equal(originals, before)


def test_images_of_several_sizes_are_resized_to_one():
    mixed = [make_images(1, 12, 12)[0], make_images(1, 40, 20)[0]]
    prepared = prepare_images(mixed, np.array([True, True]), 12, PLAIN)
    np.testing.assert_array_equal(prepared, np.stack([resize(image, 12) for image in mixed]))


def test_unreadable_images_give_an_empty_array():
    unreadable = np.zeros((3, 0, 0), np.uint8)
    assert prepare_images(unreadable, np.zeros(3, bool), 12, PLAIN).shape == (0, 12, 12)
