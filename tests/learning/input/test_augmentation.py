import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_pipeline.config.training import AugmentationConfig
from fer_pipeline.learning.input.augmentation import (
    OPERATIONS,
    AugmentationSample,
    apply_augmentation,
    compute_max_erased_size,
    list_enabled_operations,
    make_augment_fn,
)
from fer_pipeline.learning.input.mixup import make_mixup_fn

ROOT = Path(__file__).resolve().parents[3]
SIZE = 24
BORDERS = ("constant", "replicate", "reflect")
SOME = {"rotation": 15, "shift": 0.1, "zoom": 0.1, "shear": 0.1, "flip": True}
EVERYTHING = {**SOME, "brightness": 0.2, "contrast": 0.3, "random_erasing": 0.5}
SEED = (3, 14)


def make_config(**keys):
    return AugmentationConfig(**keys)


def make_noise(many=6, size=SIZE, seed=0):
    """Pixel values with fractions: what a resampling must not touch."""
    drawn = np.random.default_rng(seed).uniform(0, 255, (many, size, size, 1))
    return drawn.astype(np.float32)


def augment(images, seed=SEED, **keys):
    made = make_augment_fn(make_config(**keys), images.shape[1])(
        tf.constant(images), tf.constant(seed)
    )
    return made.numpy()


def augment_at(images, keys, **places):
    """The images with each operation at a place of its range, at no change where none is given."""
    many = len(images)
    rest = dict.fromkeys(AugmentationSample._fields, 0.5) | {"erased_size": 0.0}
    draws = AugmentationSample(
        **{
            name: tf.constant(np.broadcast_to(np.float32(places.get(name, rest[name])), many))
            for name in AugmentationSample._fields
        }
    )
    return apply_augmentation(
        tf.constant(images), draws, make_config(**keys), images.shape[1]
    ).numpy()


def bilinear(image, x, y, border):
    """The image at real places, by NumPy alone: shape (size, size) in, that of x out."""
    size = len(image)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)

    def pixel(column, row):
        if border == "constant":
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            return np.where(inside, image[row.clip(0, size - 1), column.clip(0, size - 1)], 0)
        if border == "reflect":
            column, row = (
                np.abs((k + size) % (2 * size) - size + 0.5) - 0.5 for k in (column, row)
            )
        return image[row.clip(0, size - 1).astype(int), column.clip(0, size - 1).astype(int)]

    over, under = x - left, y - top
    return (1 - under) * ((1 - over) * pixel(left, top) + over * pixel(left + 1, top)) + under * (
        (1 - over) * pixel(left, top + 1) + over * pixel(left + 1, top + 1)
    )


def place_pixel(size, mirrored, angle, scale, shear, right, down):
    """Where a pixel goes, as a product of 3x3 matrices, one per operation."""
    c = (size - 1) / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return (
        np.array([[1, 0, c + right], [0, 1, c + down], [0, 0, 1]])
        @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
        @ np.diag([scale, scale, 1])
        @ np.diag([-1 if mirrored else 1, 1, 1])
        @ np.array([[1, 0, -c], [0, 1, -c], [0, 0, 1]])
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"rotation": 181},
        {"rotation": -1},
        {"shift": 0.51},
        {"zoom": 0.91},
        {"shear": 1.1},
        {"brightness": 1.1},
        {"contrast": 1},
        {"random_erasing": 1.01},
        {"border": "wrap"},
        {"random_erasing": float("nan")},
    ],
)
def test_what_is_out_of_range_is_refused(keys):
    with pytest.raises(ValidationError):
        make_config(**keys)


def test_nothing_on_is_no_function():
    assert make_augment_fn(make_config(border="reflect"), SIZE) is None


def test_what_is_on_is_known_in_the_order_in_which_it_is_done():
    assert list_enabled_operations(make_config(random_erasing=0.2, flip=True, shear=0.1)) == [
        "flip",
        "shear",
        "random_erasing",
    ]
    assert list_enabled_operations(make_config(**EVERYTHING)) == list(OPERATIONS)
    keys = set(AugmentationConfig.model_fields) - {"border"}
    assert set(OPERATIONS) == keys, "a key without an operation, or the other way round"


@given(
    st.sampled_from(BORDERS),
    st.booleans(),
    *(st.floats(0, 1, width=32) for _ in range(5)),
    st.sampled_from([8, 23, 24]),
)
@settings(deadline=None, max_examples=60)
def test_all_moves_together_are_one_resampling(border, mirrored, angle, zoom, shear, x, y, size):
    keys = {"flip": True, "rotation": 90, "shift": 0.5, "zoom": 0.5, "shear": 1.0}
    image = make_noise(1, size, seed=size)
    found = augment_at(
        image,
        {**keys, "border": border},
        flip=0 if mirrored else 0.5,
        rotation=angle,
        zoom=zoom,
        shear=shear,
        shift_right=x,
        shift_down=y,
    )
    ends = [2 * place - 1 for place in (angle, zoom, shear, x, y)]
    matrix = place_pixel(
        size,
        mirrored,
        90 * ends[0],
        1 + 0.5 * ends[1],
        ends[2],
        0.5 * size * ends[3],
        0.5 * size * ends[4],
    )
    rows, columns = np.mgrid[:size, :size]
    from_x, from_y, _ = np.tensordot(
        np.linalg.inv(matrix), np.stack([columns, rows, np.ones_like(rows)]), 1
    )
    expected = bilinear(image[0, :, :, 0].astype(np.float64), from_x, from_y, border)
    # Places are float32: about 1e-5 pixels off, times the step between neighbours, up to 255.
    np.testing.assert_allclose(found[0, :, :, 0], expected, atol=0.02)


@pytest.mark.parametrize("angle", [15.0, -15.0, 7.5, -90.0])
def test_a_rotation_is_open_cvs(angle):
    image = cv2.GaussianBlur(make_noise(1, 48)[0, :, :, 0], (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), angle, 1)
    expected = cv2.warpAffine(image, matrix, (48, 48), flags=cv2.INTER_LINEAR)
    found = augment_at(image[None, :, :, None], {"rotation": 90}, rotation=(angle / 90 + 1) / 2)
    difference = np.abs(found[0, :, :, 0] - expected)
    # OpenCV rounds places to 1/32 pixel; its black begins where TensorFlow's does.
    step = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    assert difference[9:-9, 9:-9].max() < step / 16
    assert np.abs(found[0, :, :, 0] - image).max() > 5, "it turned nothing"


def test_a_shift_is_by_a_part_of_the_side_to_the_right_and_down():
    images = make_noise()
    found = augment_at(images, {"shift": 0.25}, shift_right=1, shift_down=1)
    expected = np.zeros_like(images)
    expected[:, 6:, 6:] = images[:, :-6, :-6]
    np.testing.assert_array_equal(found, expected)
    found = augment_at(images, {"shift": 0.25, "border": "replicate"}, shift_right=0)
    expected = np.concatenate([images[:, :, 6:], np.repeat(images[:, :, -1:], 6, axis=2)], axis=2)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [8, 23, 24, 48])
@pytest.mark.parametrize("border", BORDERS)
def test_a_flip_alone_mirrors_half_of_the_images_to_the_last_bit(size, border):
    images = make_noise(400, size)
    found = augment(images, flip=True, border=border)
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (found == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 160 <= mirrored.sum() <= 240  # four standard deviations


@pytest.mark.parametrize("border", BORDERS)
def test_moves_that_are_drawn_as_none_change_no_bit(border):
    images = make_noise()
    keys = {"flip": True, "rotation": 180, "shift": 0.5, "zoom": 0.9, "shear": 1, "border": border}
    np.testing.assert_array_equal(augment_at(images, keys), images)


@pytest.mark.parametrize(("place", "factor"), [(0, 0.75), (0.25, 0.875), (1, 1.25)])
def test_contrast_is_a_factor_about_the_mean(place, factor):
    images = make_noise()
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    expected = (mean + factor * (images - mean)).clip(0, 255)
    found = augment_at(images, {"contrast": 0.25}, contrast=place)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize(("place", "added"), [(0, -63.75), (0.5, 0), (1, 63.75)])
def test_brightness_is_added_and_clipped(place, added):
    images = make_noise()
    expected = (images + np.float32(added)).clip(0, 255)
    np.testing.assert_array_equal(
        augment_at(images, {"brightness": 0.25}, brightness=place), expected
    )
    assert (expected == 0).any() == (place == 0), "the example clips at both ends"
    assert (expected == 255).any() == (place == 1)


def test_each_operation_leaves_alone_what_is_not_its_own():
    """An operation on: the same draws as when others are on too, and no other is done."""
    flat = np.full((50, SIZE, SIZE, 1), 100, np.float32)
    tones = augment(flat, brightness=0.2)
    moved = augment(flat, brightness=0.2, **SOME, border="replicate")
    np.testing.assert_allclose(moved, tones, atol=1e-3)
    half = make_noise(50)
    erased = augment(half, random_erasing=0.5) != half
    both = augment(half, random_erasing=0.5, flip=True)
    flipped = augment(half, flip=True)
    np.testing.assert_array_equal(both != flipped, erased)


def squares(erased):
    """The top, left, height and width of what is erased in each image where anything is."""
    for mask in erased[..., 0]:
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert mask.sum() == height * width, "no rectangle"
            yield rows[0], columns[0], height, width


def test_an_erased_square_is_of_any_size_anywhere_within_and_gets_the_mean():
    images = make_noise(4000, 16)
    found = augment(images, random_erasing=0.25)
    erased = found != images
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(found[erased], np.broadcast_to(mean, found.shape)[erased], rtol=1e-5)
    tops, lefts, heights, widths = np.array(list(squares(erased))).T
    np.testing.assert_array_equal(heights, widths)
    none = len(images) - len(heights)
    counts = [none, *np.bincount(heights, minlength=5)[1:]]
    assert len(counts) == 5
    assert all(650 < count < 950 for count in counts)  # five standard deviations about 800
    for side in range(1, 5):
        for places in (tops, lefts):
            assert set(places[heights == side]) == set(range(16 - side + 1))
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("part", "size", "pixels"), [(0.29, 100, 29), (1, 48, 48), (0.01, 48, 0), (0.3, 48, 14)]
)
def test_the_largest_square_is_rounded_to_whole_pixels(part, size, pixels):
    assert compute_max_erased_size(part, size) == pixels
    images = make_noise(1, size)
    whole = augment_at(
        images, {"random_erasing": part}, erased_size=1 - 2**-23, erased_left=0, erased_top=0
    )
    assert (whole != images).sum() == pixels**2


def measure(keys, many=4000, size=16):
    """The 2x2 part and the shift of what each image of a batch is moved by, from its slopes."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    inner = slice(size // 2 - 3, size // 2 + 3)
    places = np.stack([columns, rows, np.ones_like(rows)])[:, inner, inner].reshape(3, -1).T
    found = []
    for slope in (columns, rows):
        images = np.broadcast_to((128 + 8 * slope)[None, :, :, None], (many, size, size, 1))
        moved = (augment(np.ascontiguousarray(images), **keys)[:, inner, inner, 0] - 128) / 8
        found.append(np.linalg.lstsq(places, moved.reshape(many, -1).T, rcond=None)[0].T)
    return np.stack(found, axis=1)  # (many, 2, 3): source = [A | b] * pixel


def assert_fills(values, most):
    """Uniform in -most..most: never beyond, nearly at both ends, and a quarter in each quarter."""
    assert np.abs(values).max() <= most * 1.0001
    assert values.min() < -0.995 * most
    assert values.max() > 0.995 * most
    quarters = np.histogram(values, 4, (-most * 1.0001, most * 1.0001))[0] / len(values)
    np.testing.assert_allclose(quarters, 0.25, atol=0.035)  # five standard deviations


def test_moves_fill_their_ranges_and_go_no_further():
    turned = measure({"rotation": 15})
    assert_fills(np.degrees(np.arctan2(turned[:, 1, 0], turned[:, 1, 1])), 15)
    np.testing.assert_allclose(np.linalg.det(turned[:, :, :2]), 1, atol=1e-4)
    scaled = measure({"zoom": 0.2})
    assert_fills(1 / scaled[:, 0, 0] - 1, 0.2)
    np.testing.assert_allclose(scaled[:, 0, 0], scaled[:, 1, 1], atol=1e-4)
    sheared = measure({"shear": 0.3})
    assert_fills(-sheared[:, 0, 1], 0.3)
    np.testing.assert_allclose(sheared[:, 1], np.broadcast_to([0, 1, 0], (4000, 3)), atol=1e-4)
    shifted = measure({"shift": 0.2})
    for axis in (0, 1):
        assert_fills(-shifted[:, axis, 2], 0.2 * 16)
    assert abs(np.corrcoef(shifted[:, 0, 2], shifted[:, 1, 2])[0, 1]) < 0.1


def test_tones_fill_their_ranges_and_go_no_further():
    images = np.tile(np.float32([[100], [140]]), (4000, 2, 2, 1)).reshape(4000, 4, 2, 1)[:, :2]
    added = augment(images, brightness=0.2) - images
    assert_fills(added[:, 0, 0, 0], 51)
    factors = np.ptp(augment(images, contrast=0.4), axis=(1, 2, 3)) / 40
    assert_fills(factors - 1, 0.4)


@pytest.mark.parametrize("border", BORDERS)
def test_values_stay_pixel_values(border):
    images = np.random.default_rng(0).choice(np.float32([0, 255]), (200, SIZE, SIZE, 1))
    keys = {**EVERYTHING, "rotation": 180, "zoom": 0.9, "shift": 0.5, "shear": 1, "border": border}
    for seed in range(5):
        found = augment(images, (seed, 0), **keys)
        assert found.dtype == np.float32
        assert found.shape == images.shape
        assert found.min() >= 0  # also false where a value is no number
        assert found.max() <= 255


def test_a_seed_is_all_that_the_draws_depend_on():
    images = make_noise()
    first = augment(images, **EVERYTHING)
    np.testing.assert_array_equal(augment(images, **EVERYTHING), first)
    wide = tf.constant(SEED, tf.int64)
    np.testing.assert_array_equal(augment(images, wide, **EVERYTHING), first)
    for other in [(3, 15), (4, 14), (14, 3)]:
        assert (augment(images, other, **EVERYTHING) != first).any(axis=(1, 2, 3)).all()


def test_each_image_has_draws_of_its_own():
    same = np.repeat(make_noise(1), 64, axis=0)
    found = augment(same, **EVERYTHING)
    assert len({image.tobytes() for image in found}) == 64


def test_eager_graph_and_tf_data_give_the_same_bits():
    images = make_noise(100)
    augment = make_augment_fn(make_config(**EVERYTHING, border="reflect"), SIZE)
    eager = augment(tf.constant(images), tf.constant(SEED)).numpy()
    signature = [tf.TensorSpec((None, SIZE, SIZE, 1)), tf.TensorSpec((2,), tf.int32)]
    graph = tf.function(augment, input_signature=signature)
    np.testing.assert_array_equal(graph(images, tf.constant(SEED)), eager)
    rows = tf.data.Dataset.from_tensor_slices(images).batch(64)
    seeds = tf.data.Dataset.from_tensor_slices(tf.constant([SEED, (1, 2)]))
    made = list(tf.data.Dataset.zip((rows, seeds)).map(augment, num_parallel_calls=2))
    assert [len(part) for part in made] == [64, 36]
    for part, batch, seed in zip(made, (images[:64], images[64:]), (SEED, (1, 2)), strict=True):
        np.testing.assert_array_equal(part, augment(tf.constant(batch), tf.constant(seed)))


def test_a_batch_may_be_empty():
    assert augment(make_noise(0), **EVERYTHING).shape == (0, SIZE, SIZE, 1)
    images, targets = mix(make_noise(0), np.zeros((0, 3), np.float32), 0.2)
    assert (images.shape, targets.shape) == ((0, SIZE, SIZE, 1), (0, 3))


def compute_digest():
    """Of what everything together makes of some images and targets."""
    images = make_noise(200)
    parts = (augment(images, **EVERYTHING), *mix(images, one_hot(200, 7), 0.2))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_another_process_of_one_thread_and_with_op_determinism_gives_the_same_bits():
    script = (
        "import sys, tensorflow as tf; sys.path.insert(0, 'tests/learning/input');"
        "tf.config.experimental.enable_op_determinism();"
        "tf.config.threading.set_intra_op_parallelism_threads(1);"
        "import test_augmentation as it; print(it.compute_digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == compute_digest()


def one_hot(many, classes):
    return np.eye(classes, dtype=np.float32)[np.arange(many) % classes]


def mix(images, targets, alpha, seed=SEED):
    made = make_mixup_fn(alpha)(tf.constant(images), tf.constant(targets), tf.constant(seed))
    return tuple(part.numpy() for part in made)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_mixup_gives_images_and_targets_the_same_parts_of_the_same_pair(alpha):
    many = 64
    images = make_noise(many)
    # As many classes as images: the targets tell who was mixed with whom.
    found, shares = mix(images, one_hot(many, many), alpha)
    assert shares.dtype == found.dtype == np.float32
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert ((shares > 0).sum(axis=1) <= 2).all()
    expected = np.tensordot(shares.astype(np.float64), images.astype(np.float64), 1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_mixup_draws_a_part_from_beta_for_each_image(alpha):
    many = 1000
    images, targets = np.zeros((many, 1, 1, 1), np.float32), np.eye(many, dtype=np.float32)
    parts = [np.diag(mix(images, targets, alpha, (seed, 0))[1]) for seed in range(8)]
    own = np.concatenate(parts)
    expected = np.random.default_rng(0).beta(alpha, alpha, 1_000_000)
    levels = np.linspace(-0.025, 1.025, 22)
    found, wanted = (np.histogram(part, levels)[0] / len(part) for part in (own, expected))
    np.testing.assert_allclose(found, wanted, atol=0.028)  # five standard deviations of a half
    if alpha >= 1:
        assert len(set(own.tolist())) > 0.95 * len(own), "each has its own"


def test_mixup_pairs_at_random_and_in_both_directions():
    many = 400
    images = np.zeros((many, 1, 1, 1), np.float32)
    _, shares = mix(images, np.eye(many, dtype=np.float32), 8.0)
    np.fill_diagonal(shares, 0)
    rows, partners = np.nonzero(shares)
    assert len(set(partners)) == len(partners) == len(rows) >= many - 6
    assert len(set((partners - rows) % many)) > many / 2, "not by one step alone"


def test_mixup_leaves_one_image_alone():
    images, targets = make_noise(1), np.float32([[0.1, 0.2, 0.7]])
    for seed in range(20):
        found = mix(images, targets, 0.2, (seed, 1))
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], targets)


def test_mixup_is_a_function_of_its_seed():
    images, targets = make_noise(16), one_hot(16, 4)
    first, again, other = (mix(images, targets, 0.4, seed) for seed in (SEED, SEED, (3, 15)))
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, different)
