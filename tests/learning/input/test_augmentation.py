import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fer_pipeline.config.training import AugmentationConfig
from fer_pipeline.learning.input.augmentation import (
    AugmentationSample,
    apply_augmentation,
    compute_max_erased_size,
    make_augment_fn,
)
from fer_pipeline.learning.input.augmentation_operations import OPERATIONS, list_enabled_operations
from fer_pipeline.learning.input.mixup import make_mixup_fn

ROOT = Path(__file__).resolve().parents[3]
SIZE = 24
BORDERS = ("constant", "replicate", "reflect")
MOVES: dict[str, Any] = {"rotation": 15, "shift": 0.1, "zoom": 0.1, "shear": 0.1, "flip": True}
ALL_OPERATIONS: dict[str, Any] = {
    **MOVES,
    "brightness": 0.2,
    "contrast": 0.3,
    "random_erasing": 0.5,
}
SEED = (3, 14)
Array = npt.NDArray[Any]
Images = npt.NDArray[np.float32]
"""Images of shape (n, size, size, 1)."""


def make_config(**keys: Any) -> AugmentationConfig:
    """Return the configuration with these keys."""
    return AugmentationConfig(**keys)


def make_noise(count: int = 6, size: int = SIZE, seed: int = 0) -> Images:
    """Return images of noise; their fractions show if pixels were resampled."""
    noise = np.random.default_rng(seed).uniform(0, 255, (count, size, size, 1))
    return noise.astype(np.float32)


def augment(images: Images, seed: Any = SEED, **keys: Any) -> Images:
    """Return the images augmented with this configuration."""
    augment_fn = make_augment_fn(make_config(**keys), images.shape[1])
    assert augment_fn is not None
    return augment_fn(tf.constant(images), tf.constant(seed)).numpy()


def augment_at(images: Array, keys: dict[str, Any], **positions: float) -> Images:
    """Return the images augmented by operations at positions in their ranges.

    Args:
        images: Images to augment.
        keys: Keys of the configuration.
        positions: Positions in [0, 1] of some fields of `AugmentationSample`; the others are at the
            position that changes nothing.
    """
    count = len(images)
    neutral = dict.fromkeys(AugmentationSample._fields, 0.5) | {"erased_size": 0.0}
    sample = AugmentationSample(
        **{
            name: tf.constant(np.broadcast_to(np.float32((neutral | positions)[name]), count))
            for name in AugmentationSample._fields
        }
    )
    return apply_augmentation(
        tf.constant(images), sample, make_config(**keys), images.shape[1]
    ).numpy()


def sample_bilinearly(image: Array, x: Array, y: Array, border: str) -> Array:
    """Return an image, (size, size), interpolated at real coordinates; the shape is that of x."""
    size = len(image)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)

    def get_pixels(column: Array, row: Array) -> Array:
        if border == "constant":
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            return np.where(inside, image[row.clip(0, size - 1), column.clip(0, size - 1)], 0)
        if border == "reflect":
            column, row = (
                np.abs((k + size) % (2 * size) - size + 0.5) - 0.5 for k in (column, row)
            )
        return image[row.clip(0, size - 1).astype(int), column.clip(0, size - 1).astype(int)]

    right_weight, bottom_weight = x - left, y - top
    return (1 - bottom_weight) * (
        (1 - right_weight) * get_pixels(left, top) + right_weight * get_pixels(left + 1, top)
    ) + bottom_weight * (
        (1 - right_weight) * get_pixels(left, top + 1)
        + right_weight * get_pixels(left + 1, top + 1)
    )


def compute_move_matrix(
    size: int,
    mirrored: bool,
    angle: float,
    scale: float,
    shear: float,
    right: float,
    down: float,
) -> Array:
    """Return the 3x3 matrix from old to new coordinates, a product of one matrix per operation."""
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
def test_a_setting_out_of_its_range_is_refused(keys):
    with pytest.raises(ValidationError):
        make_config(**keys)


def test_without_an_operation_there_is_no_function():
    assert make_augment_fn(make_config(border="reflect"), SIZE) is None


def test_enabled_operations_are_listed_in_the_order_of_execution():
    assert list_enabled_operations(make_config(random_erasing=0.2, flip=True, shear=0.1)) == [
        "flip",
        "shear",
        "random_erasing",
    ]
    assert list_enabled_operations(make_config(**ALL_OPERATIONS)) == list(OPERATIONS)
    keys = set(AugmentationConfig.model_fields) - {"border"}
    assert set(OPERATIONS) == keys, "a key without an operation, or the other way round"


@given(
    st.sampled_from(BORDERS),
    st.booleans(),
    *(st.floats(0, 1, width=32) for _ in range(5)),
    st.sampled_from([8, 23, 24]),
)
@settings(deadline=None, max_examples=60)
def test_all_moves_are_combined_in_one_resampling(border, mirrored, angle, zoom, shear, x, y, size):
    keys = {"flip": True, "rotation": 90, "shift": 0.5, "zoom": 0.5, "shear": 1.0}
    image = make_noise(1, size, seed=size)
    augmented = augment_at(
        image,
        {**keys, "border": border},
        flip=0 if mirrored else 0.5,
        rotation=angle,
        zoom=zoom,
        shear=shear,
        shift_right=x,
        shift_down=y,
    )
    parts = [2 * place - 1 for place in (angle, zoom, shear, x, y)]
    matrix = compute_move_matrix(
        size,
        mirrored,
        90 * parts[0],
        1 + 0.5 * parts[1],
        parts[2],
        0.5 * size * parts[3],
        0.5 * size * parts[4],
    )
    rows, columns = np.mgrid[:size, :size]
    from_x, from_y, _ = np.tensordot(
        np.linalg.inv(matrix), np.stack([columns, rows, np.ones_like(rows)]), 1
    )
    expected = sample_bilinearly(image[0, :, :, 0].astype(np.float64), from_x, from_y, border)
    # Coordinates are float32: errors of 1e-5 pixels, times differences of up to 255 per pixel.
    np.testing.assert_allclose(augmented[0, :, :, 0], expected, atol=0.02)


@pytest.mark.parametrize("angle", [15.0, -15.0, 7.5, -90.0])
def test_a_rotation_equals_that_of_opencv(angle):
    image = cv2.GaussianBlur(make_noise(1, 48)[0, :, :, 0], (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), angle, 1)
    expected = cv2.warpAffine(image, matrix, (48, 48), flags=cv2.INTER_LINEAR)
    augmented = augment_at(image[None, :, :, None], {"rotation": 90}, rotation=(angle / 90 + 1) / 2)
    difference = np.abs(augmented[0, :, :, 0] - expected)
    # OpenCV rounds coordinates to 1/32 pixel. The border, which both fill with black, is left out.
    step = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    assert difference[9:-9, 9:-9].max() < step / 16
    assert np.abs(augmented[0, :, :, 0] - image).max() > 5, "the image was not rotated"


def test_a_shift_is_a_fraction_of_the_side_to_the_right_and_down():
    images = make_noise()
    shifted = augment_at(images, {"shift": 0.25}, shift_right=1, shift_down=1)
    expected = np.zeros_like(images)
    expected[:, 6:, 6:] = images[:, :-6, :-6]
    np.testing.assert_array_equal(shifted, expected)
    shifted = augment_at(images, {"shift": 0.25, "border": "replicate"}, shift_right=0)
    expected = np.concatenate([images[:, :, 6:], np.repeat(images[:, :, -1:], 6, axis=2)], axis=2)
    np.testing.assert_array_equal(shifted, expected)


@pytest.mark.parametrize("size", [8, 23, 24, 48])
@pytest.mark.parametrize("border", BORDERS)
def test_a_flip_mirrors_half_of_the_images_without_a_change_of_values(size, border):
    images = make_noise(400, size)
    augmented = augment(images, flip=True, border=border)
    mirrored = (augmented == images[:, :, ::-1]).all(axis=(1, 2, 3))
    unchanged = (augmented == images).all(axis=(1, 2, 3))
    assert (mirrored ^ unchanged).all()
    assert 160 <= mirrored.sum() <= 240  # four standard deviations


@pytest.mark.parametrize("border", BORDERS)
def test_moves_of_zero_change_no_bit(border):
    images = make_noise()
    keys = {"flip": True, "rotation": 180, "shift": 0.5, "zoom": 0.9, "shear": 1, "border": border}
    np.testing.assert_array_equal(augment_at(images, keys), images)


@pytest.mark.parametrize(("position", "factor"), [(0, 0.75), (0.25, 0.875), (1, 1.25)])
def test_contrast_is_a_factor_about_the_mean(position, factor):
    images = make_noise()
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    expected = (mean + factor * (images - mean)).clip(0, 255)
    augmented = augment_at(images, {"contrast": 0.25}, contrast=position)
    np.testing.assert_allclose(augmented, expected, atol=1e-3)
    assert augmented.min() >= 0
    assert augmented.max() <= 255


@pytest.mark.parametrize(("position", "added"), [(0, -63.75), (0.5, 0), (1, 63.75)])
def test_brightness_is_added_and_clipped(position, added):
    images = make_noise()
    expected = (images + np.float32(added)).clip(0, 255)
    np.testing.assert_array_equal(
        augment_at(images, {"brightness": 0.25}, brightness=position), expected
    )
    assert (expected == 0).any() == (position == 0), "the noise must be clipped at both ends"
    assert (expected == 255).any() == (position == 1)


def test_operations_do_not_influence_each_other():
    """The random numbers of an operation do not depend on the operations that are enabled."""
    flat = np.full((50, SIZE, SIZE, 1), 100, np.float32)
    tones = augment(flat, brightness=0.2)
    moved = augment(flat, brightness=0.2, **MOVES, border="replicate")
    np.testing.assert_allclose(moved, tones, atol=1e-3)
    half = make_noise(50)
    erased = augment(half, random_erasing=0.5) != half
    both = augment(half, random_erasing=0.5, flip=True)
    flipped = augment(half, flip=True)
    np.testing.assert_array_equal(both != flipped, erased)


def find_erased_squares(erased: Array) -> Iterator[tuple[int, int, int, int]]:
    """Yield top, left, height and width of the rectangle in each mask that is not empty."""
    for mask in erased[..., 0]:
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert mask.sum() == height * width, "not a rectangle"
            yield int(rows[0]), int(columns[0]), int(height), int(width)


def test_erased_squares_have_all_sizes_and_positions_and_the_mean_value():
    images = make_noise(4000, 16)
    augmented = augment(images, random_erasing=0.25)
    erased = augmented != images
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(
        augmented[erased], np.broadcast_to(mean, augmented.shape)[erased], rtol=1e-5
    )
    tops, lefts, heights, widths = np.array(list(find_erased_squares(erased))).T
    np.testing.assert_array_equal(heights, widths)
    unchanged_count = len(images) - len(heights)
    counts = [unchanged_count, *np.bincount(heights, minlength=5)[1:]]
    assert len(counts) == 5
    assert all(650 < count < 950 for count in counts)  # five standard deviations about 800
    for side in range(1, 5):
        for corners in (tops, lefts):
            assert set(corners[heights == side]) == set(range(16 - side + 1))
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("fraction", "size", "pixels"), [(0.29, 100, 29), (1, 48, 48), (0.01, 48, 0), (0.3, 48, 14)]
)
def test_the_largest_square_is_rounded_to_whole_pixels(fraction, size, pixels):
    assert compute_max_erased_size(fraction, size) == pixels
    images = make_noise(1, size)
    erased = augment_at(
        images, {"random_erasing": fraction}, erased_size=1 - 2**-23, erased_left=0, erased_top=0
    )
    assert (erased != images).sum() == pixels**2


def measure_moves(keys: dict[str, Any], count: int = 4000, size: int = 16) -> Array:
    """Return the affine map of each image of a batch, (count, 2, 3), fitted to moved gradients.

    The source of a pixel p is A p + b; a map is [A | b].
    """
    rows, columns = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
    center = slice(size // 2 - 3, size // 2 + 3)
    coordinates = np.stack([columns, rows, np.ones_like(rows)])[:, center, center].reshape(3, -1).T
    maps = []
    for gradient in (columns, rows):
        images = np.broadcast_to((128 + 8 * gradient)[None, :, :, None], (count, size, size, 1))
        moved = (augment(np.ascontiguousarray(images), **keys)[:, center, center, 0] - 128) / 8
        maps.append(np.linalg.lstsq(coordinates, moved.reshape(count, -1).T, rcond=None)[0].T)
    return np.stack(maps, axis=1)


def assert_fills_range(values: Array, limit: float) -> None:
    """Assert that values are uniform in [-limit, limit], and come near to both ends."""
    assert np.abs(values).max() <= limit * 1.0001
    assert values.min() < -0.995 * limit
    assert values.max() > 0.995 * limit
    quarters = np.histogram(values, 4, (-limit * 1.0001, limit * 1.0001))[0] / len(values)
    np.testing.assert_allclose(quarters, 0.25, atol=0.035)  # five standard deviations


def test_moves_are_uniform_in_their_ranges():
    rotations = measure_moves({"rotation": 15})
    assert_fills_range(np.degrees(np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1])), 15)
    np.testing.assert_allclose(np.linalg.det(rotations[:, :, :2]), 1, atol=1e-4)
    zooms = measure_moves({"zoom": 0.2})
    assert_fills_range(1 / zooms[:, 0, 0] - 1, 0.2)
    np.testing.assert_allclose(zooms[:, 0, 0], zooms[:, 1, 1], atol=1e-4)
    shears = measure_moves({"shear": 0.3})
    assert_fills_range(-shears[:, 0, 1], 0.3)
    np.testing.assert_allclose(shears[:, 1], np.broadcast_to([0, 1, 0], (4000, 3)), atol=1e-4)
    shifts = measure_moves({"shift": 0.2})
    for axis in (0, 1):
        assert_fills_range(-shifts[:, axis, 2], 0.2 * 16)
    assert abs(np.corrcoef(shifts[:, 0, 2], shifts[:, 1, 2])[0, 1]) < 0.1


def test_brightness_and_contrast_are_uniform_in_their_ranges():
    images = np.tile(np.array([[100], [140]], np.float32), (4000, 2, 2, 1)).reshape(4000, 4, 2, 1)[
        :, :2
    ]
    added = augment(images, brightness=0.2) - images
    assert_fills_range(added[:, 0, 0, 0], 51)
    factors = np.ptp(augment(images, contrast=0.4), axis=(1, 2, 3)) / 40
    assert_fills_range(factors - 1, 0.4)


@pytest.mark.parametrize("border", BORDERS)
def test_values_stay_between_0_and_255(border):
    images = np.random.default_rng(0).choice(np.array([0, 255], np.float32), (200, SIZE, SIZE, 1))
    keys = {
        **ALL_OPERATIONS,
        "rotation": 180,
        "zoom": 0.9,
        "shift": 0.5,
        "shear": 1,
        "border": border,
    }
    for seed in range(5):
        augmented = augment(images, (seed, 0), **keys)
        assert augmented.dtype == np.float32
        assert augmented.shape == images.shape
        assert augmented.min() >= 0  # also false if a value is NaN
        assert augmented.max() <= 255


def test_random_numbers_depend_only_on_the_seed():
    images = make_noise()
    first = augment(images, **ALL_OPERATIONS)
    np.testing.assert_array_equal(augment(images, **ALL_OPERATIONS), first)
    wide = tf.constant(SEED, tf.int64)
    np.testing.assert_array_equal(augment(images, wide, **ALL_OPERATIONS), first)
    for other_seed in [(3, 15), (4, 14), (14, 3)]:
        assert (augment(images, other_seed, **ALL_OPERATIONS) != first).any(axis=(1, 2, 3)).all()


def test_each_image_is_augmented_differently():
    same = np.repeat(make_noise(1), 64, axis=0)
    augmented = augment(same, **ALL_OPERATIONS)
    assert len({image.tobytes() for image in augmented}) == 64


def test_eager_graph_and_tf_data_give_the_same_bits():
    images = make_noise(100)
    augment_fn = make_augment_fn(make_config(**ALL_OPERATIONS, border="reflect"), SIZE)
    assert augment_fn is not None
    eager = augment_fn(tf.constant(images), tf.constant(SEED)).numpy()
    signature = [tf.TensorSpec((None, SIZE, SIZE, 1)), tf.TensorSpec((2,), tf.int32)]
    graph = tf.function(augment_fn, input_signature=signature)
    np.testing.assert_array_equal(graph(images, tf.constant(SEED)), eager)
    rows = tf.data.Dataset.from_tensor_slices(images).batch(64)
    seeds = tf.data.Dataset.from_tensor_slices(tf.constant([SEED, (1, 2)]))
    batches = list(tf.data.Dataset.zip((rows, seeds)).map(augment_fn, num_parallel_calls=2))
    assert [len(augmented) for augmented in batches] == [64, 36]
    for augmented, batch, seed in zip(
        batches, (images[:64], images[64:]), (SEED, (1, 2)), strict=True
    ):
        np.testing.assert_array_equal(augmented, augment_fn(tf.constant(batch), tf.constant(seed)))


def test_a_batch_may_be_empty():
    assert augment(make_noise(0), **ALL_OPERATIONS).shape == (0, SIZE, SIZE, 1)
    images, targets = mix(make_noise(0), np.zeros((0, 3), np.float32), 0.2)
    assert (images.shape, targets.shape) == ((0, SIZE, SIZE, 1), (0, 3))


def compute_digest() -> str:
    """Return the SHA-256 of images after all operations, and of mixed images and targets."""
    images = make_noise(200)
    parts = (augment(images, **ALL_OPERATIONS), *mix(images, make_one_hot_targets(200, 7), 0.2))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_another_process_with_one_thread_and_op_determinism_gives_the_same_bits():
    script = (
        "import sys, tensorflow as tf; sys.path.insert(0, 'tests/learning/input');"
        "tf.config.experimental.enable_op_determinism();"
        "tf.config.threading.set_intra_op_parallelism_threads(1);"
        "import test_augmentation as it; print(it.compute_digest())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == compute_digest()


def make_one_hot_targets(count: int, classes: int) -> npt.NDArray[np.float32]:
    """Return one-hot targets of labels 0, 1, ..., repeated."""
    return np.eye(classes, dtype=np.float32)[np.arange(count) % classes]


def mix(
    images: Images, targets: npt.NDArray[np.float32], alpha: float, seed: Sequence[int] = SEED
) -> tuple[Images, npt.NDArray[np.float32]]:
    """Return images and targets mixed by mixup."""
    mixup_fn = make_mixup_fn(alpha)
    mixed, shares = mixup_fn(tf.constant(images), tf.constant(targets), tf.constant(seed))
    return mixed.numpy(), shares.numpy()


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_mixup_mixes_images_and_targets_of_the_same_pair_equally(alpha):
    count = 64
    images = make_noise(count)
    # Each image has its own class: the targets show which images were mixed.
    mixed, shares = mix(images, make_one_hot_targets(count, count), alpha)
    assert shares.dtype == mixed.dtype == np.float32
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert ((shares > 0).sum(axis=1) <= 2).all()
    expected = np.tensordot(shares.astype(np.float64), images.astype(np.float64), 1)
    np.testing.assert_allclose(mixed, expected, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 8.0])
def test_mixup_samples_the_part_of_each_image_from_a_beta_distribution(alpha):
    count = 1000
    images, targets = np.zeros((count, 1, 1, 1), np.float32), np.eye(count, dtype=np.float32)
    parts = [np.diag(mix(images, targets, alpha, (seed, 0))[1]) for seed in range(8)]
    own = np.concatenate(parts)
    expected = np.random.default_rng(0).beta(alpha, alpha, 1_000_000)
    levels = np.linspace(-0.025, 1.025, 22)
    frequencies, expected_frequencies = (
        np.histogram(part, levels)[0] / len(part) for part in (own, expected)
    )
    # Five standard deviations of a frequency of one half.
    np.testing.assert_allclose(frequencies, expected_frequencies, atol=0.028)
    if alpha >= 1:
        assert len(set(own.tolist())) > 0.95 * len(own), "the parts of the images must differ"


def test_mixup_pairs_images_at_random():
    count = 400
    images = np.zeros((count, 1, 1, 1), np.float32)
    _, shares = mix(images, np.eye(count, dtype=np.float32), 8.0)
    np.fill_diagonal(shares, 0)
    rows, partners = np.nonzero(shares)
    assert len(set(partners)) == len(partners) == len(rows) >= count - 6
    assert len(set((partners - rows) % count)) > count / 2, (
        "the distance to the partner must differ"
    )


def test_mixup_does_not_change_a_single_image():
    images, targets = make_noise(1), np.array([[0.1, 0.2, 0.7]], np.float32)
    for seed in range(20):
        mixed = mix(images, targets, 0.2, (seed, 1))
        np.testing.assert_array_equal(mixed[0], images)
        np.testing.assert_array_equal(mixed[1], targets)


def test_mixup_depends_only_on_its_seed():
    images, targets = make_noise(16), make_one_hot_targets(16, 4)
    first, again, different = (mix(images, targets, 0.4, seed) for seed in (SEED, SEED, (3, 15)))
    for array, same_array, different_array in zip(first, again, different, strict=True):
        np.testing.assert_array_equal(array, same_array)
        assert not np.array_equal(array, different_array)
