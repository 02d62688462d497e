import itertools
import pickle

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_pipeline.data import synthetic
from fer_pipeline.data.enhancement import Enhancement, enhance, normalize_local_contrast

FACE = synthetic.draw_face(3, np.random.default_rng(4), 48)
ALL_ENHANCEMENTS = [
    Enhancement(denoise=denoise, equalize=equalize, local_contrast=normalize)
    for denoise, equalize, normalize in itertools.product((0, 4), (False, True), (False, True))
]


@pytest.mark.parametrize("strength", [-0.1, 256, float("nan"), float("inf"), "strong"])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValidationError):
        Enhancement(denoise=strength)


def test_an_unknown_option_is_refused():
    with pytest.raises(ValidationError):
        Enhancement(sharpen=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("enhancement", ALL_ENHANCEMENTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (8, 8), (48, 48), (5, 130)])
@pytest.mark.parametrize("grey", [0, 1, 127, 255])
def test_an_image_of_one_grey_level_stays_so(enhancement, shape, grey):
    with np.errstate(all="raise"):
        enhanced = enhance(np.full(shape, grey, np.uint8), enhancement)
    assert (enhanced.shape, enhanced.dtype) == (shape, np.dtype(np.uint8))
    assert np.unique(enhanced).tolist() == [128 if enhancement.local_contrast else grey]


def test_very_faint_noise_is_not_amplified_much():
    faint = np.full((48, 48), 90, np.uint8)
    faint[::9, ::7] += 1
    assert abs(normalize_local_contrast(faint).astype(int) - 128).max() <= 64


def test_by_default_the_image_is_returned_unchanged():
    assert enhance(FACE, Enhancement()) is FACE


def test_denoising_precedes_equalisation_and_local_contrast():
    denoised = enhance(FACE, Enhancement(denoise=4))
    equalized = enhance(denoised, Enhancement(equalize=True))
    expected = normalize_local_contrast(equalized)
    assert enhance(FACE, ALL_ENHANCEMENTS[-1]).tobytes() == expected.tobytes()
    # Each step changes the image.
    assert len({image.tobytes() for image in (FACE, denoised, equalized, expected)}) == 4


@pytest.mark.parametrize("enhancement", ALL_ENHANCEMENTS, ids=str)
def test_the_input_image_is_not_changed(enhancement):
    before = FACE.tobytes()
    enhance(FACE, enhancement)
    assert FACE.tobytes() == before


def normalize_slowly(image: np.ndarray, radius: int) -> np.ndarray:
    """Apply the formula of the paper pixel by pixel."""
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (0.5625 * radius) ** 2))
    window /= window.sum()

    def average(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, radius, mode="symmetric")
        return np.array(
            [
                [
                    (window * padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1]).sum()
                    for x in range(values.shape[1])
                ]
                for y in range(values.shape[0])
            ]
        )

    centered = image - average(image.astype(float))
    sigma = np.sqrt(average(centered**2))
    return centered / np.maximum(sigma, sigma.mean())


@pytest.mark.parametrize(
    ("shape", "radius"), [((48, 48), 4), ((24, 30), 2), ((96, 60), 5), ((8, 8), 1)]
)
def test_local_contrast_is_the_formula_of_the_paper(shape, radius):
    image = np.asarray(cv2.resize(FACE, shape[::-1]), np.uint8)
    expected = 128 + 64 * normalize_slowly(image, radius)
    # Exactly between two grey levels, either is right.
    assert normalize_local_contrast(image) == pytest.approx(expected.clip(0, 255), abs=0.5 + 1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]), st.integers(0, 50))
def test_local_contrast_does_not_depend_on_brightness_and_gain(seed, gain, offset):
    dark: npt.NDArray[np.uint8] = np.random.default_rng(seed).integers(0, 60, (17, 23), np.uint8)
    normalized = normalize_local_contrast(dark).astype(int)
    bright = (dark * np.uint8(gain) + np.uint8(offset)).astype(np.uint8)
    brighter = normalize_local_contrast(bright).astype(int)
    assert abs(normalized - brighter).max() <= 1


def test_equalisation_is_the_scaled_cumulative_histogram():
    counts = np.cumsum(np.bincount(FACE.ravel(), minlength=256))
    least = counts[counts > 0][0]
    table = (counts - least) * 255 / (FACE.size - least)
    assert enhance(FACE, Enhancement(equalize=True)) == pytest.approx(table[FACE], abs=0.501)


def test_denoising_removes_noise_and_keeps_edges():
    clean = np.full((48, 48), 60, np.uint8)
    clean[:, 24:] = 180
    noise = np.random.default_rng(0).normal(0, 5, clean.shape)
    noisy = np.rint(clean + noise).clip(0, 255).astype(np.uint8)

    errors = [
        np.abs(enhance(noisy, Enhancement(denoise=h)).astype(int) - clean).mean()
        for h in (0, 5, 12)
    ]

    assert errors[0] > 3
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1]


def test_an_enhancement_is_described_in_words():
    assert [str(enhancement) for enhancement in ALL_ENHANCEMENTS] == [
        "nothing",
        "local_contrast",
        "equalize",
        "equalize, local_contrast",
        "denoise=4",
        "denoise=4, local_contrast",
        "denoise=4, equalize",
        "denoise=4, equalize, local_contrast",
    ]


def test_an_enhancement_can_be_pickled_and_written_as_json():
    assert [
        pickle.loads(pickle.dumps(enhancement)) for enhancement in ALL_ENHANCEMENTS
    ] == ALL_ENHANCEMENTS
    assert [
        Enhancement.model_validate_json(enhancement.model_dump_json())
        for enhancement in ALL_ENHANCEMENTS
    ] == ALL_ENHANCEMENTS
