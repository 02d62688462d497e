"""Random changes of each training image, different each time that it is seen.

All of it is a pure function of a seed, so that a resumed run samples the same numbers. The variants
that the Spark job writes to disk are in `fer_pipeline.data.variants`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from fer_pipeline.config.training import AugmentationConfig
from fer_pipeline.learning.types import Tensor

GEOMETRIC = ("flip", "rotation", "shift", "zoom", "shear")
"""Operations that move pixels: together they are one resampling."""

OPERATIONS = (*GEOMETRIC, "contrast", "brightness", "random_erasing")
"""All operations, keys of `training.augmentation`, in the order in which they are applied."""

_FILL_MODES = {"constant": "CONSTANT", "replicate": "NEAREST", "reflect": "REFLECT"}

# Folded into the seed of a batch: random numbers independent of mixup's.
_RANDOM_STREAM = 1


class AugmentationSample(NamedTuple):
    """The random numbers of a batch: each float32 of shape (n,), uniform in [0, 1).

    Every operation has its own numbers, whether it is on or off, so that turning one on does not
    change the others. 0 and 1 are the ends of an operation's range. 0.5 is no change, except for
    the erased square.
    """

    flip: Tensor  # mirrored below 0.5
    rotation: Tensor
    shift_right: Tensor
    shift_down: Tensor
    zoom: Tensor
    shear: Tensor
    contrast: Tensor
    brightness: Tensor
    erased_size: Tensor  # 0 is no square
    erased_left: Tensor
    erased_top: Tensor


def list_enabled_operations(config: AugmentationConfig) -> list[str]:
    """Return the operations that are on, in the order of `OPERATIONS`."""
    return [name for name in OPERATIONS if getattr(config, name)]


def make_augment_fn(
    config: AugmentationConfig, size: int
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return a function that changes each image of a batch in its own way.

    Args:
        config: The operations and their ranges.
        size: Side of the images, in pixels.

    Returns:
        A function of images, float32 of shape (n, size, size, 1) with pixel values in 0..255, and a
        seed, int32 or int64 of shape (2,), to images of the same kind; the same in eager mode, in a
        `tf.function` and in `tf.data`. None if no operation is on.
    """
    if not list_enabled_operations(config):
        return None

    def augment(images: Tensor, seed: Tensor) -> Tensor:
        shape = (len(AugmentationSample._fields), tf.shape(images)[0])
        own_seed = tf.random.experimental.stateless_fold_in(seed, _RANDOM_STREAM)
        numbers = tf.random.stateless_uniform(shape, own_seed, alg="philox")
        sample = AugmentationSample(*tf.unstack(numbers))
        return apply_augmentation(images, sample, config, size)

    return augment


def apply_augmentation(
    images: Tensor, sample: AugmentationSample, config: AugmentationConfig, size: int
) -> Tensor:
    """Return the images after all operations that are on.

    Args:
        images: Images, float32 of shape (n, size, size, 1), pixel values in 0..255.
        sample: Position of each operation in its range.
        config: The operations and their ranges.
        size: Side of the images, in pixels.

    Returns:
        Images of the same shape, type and range.
    """
    if any(getattr(config, name) for name in GEOMETRIC):
        transforms = _make_projective_transforms(sample, config, size)
        images = _resample(images, transforms, config.border, size)
    if config.contrast:
        mean = _compute_image_means(images)
        factors = 1 + _scale_symmetric(sample.contrast, config.contrast)
        images = mean + (images - mean) * _broadcast_per_image(factors)
    if config.brightness:
        images += _broadcast_per_image(_scale_symmetric(sample.brightness, 255 * config.brightness))
    images = tf.clip_by_value(images, 0.0, 255.0)
    if config.random_erasing:
        erased = _make_erased_mask(sample, config.random_erasing, size)
        images = tf.where(erased, _compute_image_means(images), images)
    return images


def compute_max_erased_size(erasing: float, size: int) -> int:
    """Return the longest side of an erased square, in pixels.

    Args:
        erasing: The longest side as a share of the image's side.
        size: Side of the image, in pixels.
    """
    return round(erasing * size)


def _scale_symmetric(uniform: Tensor, limit: float) -> Tensor:
    """Map numbers of 0..1 to -limit..limit; exactly 0 for a limit of 0."""
    return (2 * uniform - 1) * limit


def _broadcast_per_image(numbers: Tensor) -> Tensor:
    """Reshape one number per image, of shape (n,), so that it broadcasts over images."""
    return tf.reshape(numbers, (-1, 1, 1, 1))


def _compute_image_means(images: Tensor) -> Tensor:
    return tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)


def _make_projective_transforms(
    sample: AugmentationSample, config: AugmentationConfig, size: int
) -> Tensor:
    """Return the source of each output pixel, as the resampling's eight numbers per image.

    An image is mirrored, scaled, sheared (x + k * y, with y downwards), rotated (counter-clockwise
    positive), all about its centre (size - 1) / 2, and shifted. The resampling needs the inverse:
    source = centre + A * (pixel - centre - shift), A = flip * (1 / scale) * shear^-1 * rotation^-1.
    If only the flip is on, all eight are integers, and no pixel value changes.
    """
    mirror = tf.where(sample.flip < 0.5, -1.0, 1.0) if config.flip else tf.ones_like(sample.flip)
    angle = _scale_symmetric(sample.rotation, math.radians(config.rotation))
    # Divided by the scale, not multiplied by 1 / scale: in a graph TensorFlow turns that into a
    # reciprocal, which differs in the last bit.
    scale = 1 + _scale_symmetric(sample.zoom, config.zoom)
    shear = _scale_symmetric(sample.shear, config.shear)
    right = _scale_symmetric(sample.shift_right, config.shift * size)
    down = _scale_symmetric(sample.shift_down, config.shift * size)
    cos, sin = tf.cos(angle), tf.sin(angle)
    xx, xy = mirror * (cos - shear * sin) / scale, mirror * (-sin - shear * cos) / scale
    yx, yy = sin / scale, cos / scale
    centre = (size - 1) / 2
    x = centre - xx * (centre + right) - xy * (centre + down)
    y = centre - yx * (centre + right) - yy * (centre + down)
    zero = tf.zeros_like(x)
    return tf.stack([xx, xy, x, yx, yy, y, zero, zero], axis=1)


def _resample(images: Tensor, transforms: Tensor, border: str, size: int) -> Tensor:
    """Resample once, bilinearly. This op's `reflect` repeats the outermost pixel."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=_FILL_MODES[border],
    )


def _make_erased_mask(sample: AugmentationSample, erasing: float, size: int) -> Tensor:
    """Return the mask of a square within each image, bool of shape (n, size, size, 1).

    The square gets the image's mean (Zhong et al. 2017, "Random Erasing", with the mean in place of
    noise). The mean is neither a bright nor a dark spot, whatever the light of the image and the
    normalization, whereas a fixed 128 would be one on the many darker or brighter faces.
    """
    side = tf.floor(sample.erased_size * (compute_max_erased_size(erasing, size) + 1))
    left = tf.floor(sample.erased_left * (size - side + 1))
    top = tf.floor(sample.erased_top * (size - side + 1))
    position = tf.range(size, dtype=tf.float32)

    def is_within(start: Tensor) -> Tensor:
        return (position >= start[:, None]) & (position < (start + side)[:, None])

    return (is_within(top)[:, :, None] & is_within(left)[:, None, :])[..., None]
