import itertools
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_pipeline.data import synthetic
from fer_pipeline.data.enhancement import Enhancement, enhance, normalize_local_contrast

FACE = synthetic.draw_face(3, np.random.default_rng(4), 48)
EVERY = [
    Enhancement(denoise=denoise, equalize=equalize, local_contrast=local)
    for denoise, equalize, local in itertools.product((0, 4), (False, True), (False, True))
]


@pytest.mark.parametrize("value", [-0.1, 256, float("nan"), float("inf"), "strong"])
def test_a_strength_out_of_range_is_refused(value):
    with pytest.raises(ValidationError):
        Enhancement(denoise=value)


def test_another_name_is_refused():
    with pytest.raises(ValidationError):
        Enhancement(sharpen=True)


@pytest.mark.parametrize("how", EVERY, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (8, 8), (48, 48), (5, 130)])
@pytest.mark.parametrize("grey", [0, 1, 127, 255])
def test_one_grey_stays_one_grey(how, shape, grey):
    with np.errstate(all="raise"):
        made = enhance(np.full(shape, grey, np.uint8), how)
    assert (made.shape, made.dtype) == (shape, np.uint8)
    assert np.unique(made).tolist() == [128 if how.local_contrast else grey]


def test_the_faintest_noise_is_not_made_strong():
    faint = np.full((48, 48), 90, np.uint8)
    faint[::9, ::7] += 1
    assert abs(normalize_local_contrast(faint).astype(int) - 128).max() <= 64


def test_nothing_is_done_by_default():
    assert enhance(FACE, Enhancement()) is FACE


def test_steps_follow_each_other_in_the_stated_order():
    denoised = enhance(FACE, Enhancement(denoise=4))
    equalized = enhance(denoised, Enhancement(equalize=True))
    expected = normalize_local_contrast(equalized)
    assert enhance(FACE, EVERY[-1]).tobytes() == expected.tobytes()
    # And each of them does something.
    assert len({image.tobytes() for image in (FACE, denoised, equalized, expected)}) == 4


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_the_image_itself_is_left_alone(how):
    before = FACE.tobytes()
    enhance(FACE, how)
    assert FACE.tobytes() == before


def local_contrast(image: np.ndarray, radius: int) -> np.ndarray:
    """The formula as it is written, a pixel at a time."""
    at = np.arange(-radius, radius + 1)
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * (0.5625 * radius) ** 2))
    window /= window.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        wide = np.pad(values, radius, mode="symmetric")
        return np.array(
            [
                [
                    (window * wide[y : y + 2 * radius + 1, x : x + 2 * radius + 1]).sum()
                    for x in range(values.shape[1])
                ]
                for y in range(values.shape[0])
            ]
        )

    v = image - mean(image.astype(float))
    sigma = np.sqrt(mean(v**2))
    return v / np.maximum(sigma, sigma.mean())


@pytest.mark.parametrize(
    ("shape", "radius"), [((48, 48), 4), ((24, 30), 2), ((96, 60), 5), ((8, 8), 1)]
)
def test_local_contrast_is_the_formula_of_the_paper(shape, radius):
    image = cv2.resize(FACE, shape[::-1])
    expected = 128 + 64 * local_contrast(image, radius)
    # Exactly between two grey levels, either is right.
    assert normalize_local_contrast(image) == pytest.approx(expected.clip(0, 255), abs=0.5 + 1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]), st.integers(0, 50))
def test_local_contrast_does_not_hang_on_light_and_exposure(seed, gain, offset):
    dark = np.random.default_rng(seed).integers(0, 60, (17, 23), np.uint8)
    made = normalize_local_contrast(dark).astype(int)
    brighter = normalize_local_contrast(dark * np.uint8(gain) + np.uint8(offset)).astype(int)
    assert abs(made - brighter).max() <= 1


def test_equalisation_is_the_scaled_cumulative_histogram():
    counts = np.cumsum(np.bincount(FACE.ravel(), minlength=256))
    least = counts[counts > 0][0]
    table = (counts - least) * 255 / (FACE.size - least)
    assert enhance(FACE, Enhancement(equalize=True)) == pytest.approx(table[FACE], abs=0.501)


def test_denoising_takes_noise_and_leaves_edges():
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


def test_it_is_said_in_words():
    assert [str(how) for how in EVERY] == [
        "nothing",
        "local_contrast",
        "equalize",
        "equalize, local_contrast",
        "denoise=4",
        "denoise=4, local_contrast",
        "denoise=4, equalize",
        "denoise=4, equalize, local_contrast",
    ]


def test_it_travels():
    assert [pickle.loads(pickle.dumps(how)) for how in EVERY] == EVERY
    assert [Enhancement.model_validate_json(how.model_dump_json()) for how in EVERY] == EVERY
