"""Random augmentation of the training images, different each time that an image is used.

All functions depend only on their arguments, such as the seed, so that a resumed run samples the
same random numbers. `fer_pipeline.data.variants` makes the variants that the Spark job writes to
disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from fer_pipeline.config.training import AugmentationConfig
from fer_pipeline.learning.input.augmentation_operations import (
    GEOMETRIC,
    list_enabled_operations,
)
from fer_pipeline.learning.types import Tensor

_FILL_MODES = {"constant": "CONSTANT", "replicate": "NEAREST", "reflect": "REFLECT"}

# Folded into the seed of a batch, so that the random numbers are independent of those of mixup.
_RANDOM_STREAM = 1


class AugmentationSample(NamedTuple):
    """Random numbers for a batch of n images: float32 tensors of shape (n,), uniform in [0, 1).

    Each operation has its own numbers, even if it is off, so that turning an operation on does not
    change the numbers of the others. 0 and 1 are the ends of an operation's range. 0.5 changes
    nothing, except for the erased square.
    """

    flip: Tensor  # below 0.5: the image is mirrored
    rotation: Tensor
    shift_right: Tensor
    shift_down: Tensor
    zoom: Tensor
    shear: Tensor
    contrast: Tensor
    brightness: Tensor
    erased_size: Tensor  # 0: no square is erased
    erased_left: Tensor
    erased_top: Tensor


def make_augment_fn(
    config: AugmentationConfig, size: int
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return a function that augments the images of a batch, each with its own random numbers.

    Args:
        config: The section `training.augmentation` of the configuration: the enabled operations
            and their ranges.
        size: Height and width of the images, in pixels.

    Returns:
        A function `(images, seed) -> images`, or None if no operation is enabled. Images: float32
        of shape (n, size, size, 1), pixel values in [0, 255]. Seed: int32 or int64 of shape (2,).
        With the same arguments, the function returns the same images in eager mode, in a
        `tf.function` and in `tf.data`.
    """
    if not list_enabled_operations(config):
        return None

    def augment(images: Tensor, seed: Tensor) -> Tensor:
        """Augment each image of a batch with random numbers that the seed determines."""
        shape = (len(AugmentationSample._fields), tf.shape(images)[0])
        stream_seed = tf.random.experimental.stateless_fold_in(seed, _RANDOM_STREAM)
        numbers = tf.random.stateless_uniform(shape, stream_seed, alg="philox")
        sample = AugmentationSample(*tf.unstack(numbers))
        return apply_augmentation(images, sample, config, size)

    return augment


def apply_augmentation(
    images: Tensor, sample: AugmentationSample, config: AugmentationConfig, size: int
) -> Tensor:
    """Apply all enabled operations to a batch of images.

    Args:
        images: Images, float32 of shape (n, size, size, 1), pixel values in [0, 255].
        sample: Random numbers for each image; 0 and 1 are the ends of an operation's range.
        config: The section `training.augmentation` of the configuration: the enabled operations
            and their ranges.
        size: Height and width of the images, in pixels.

    Returns:
        The augmented images, with the same shape, type and range of pixel values.
    """
    if any(getattr(config, name) for name in GEOMETRIC):
        transforms = _make_projective_transforms(sample, config, size)
        images = _resample(images, transforms, config.border, size)
    if config.contrast:
        mean = _compute_image_means(images)
        factors = 1 + _scale_symmetric(sample.contrast, config.contrast)
        images = mean + (images - mean) * _reshape_for_broadcasting(factors)
    if config.brightness:
        images += _reshape_for_broadcasting(
            _scale_symmetric(sample.brightness, 255 * config.brightness)
        )
    images = tf.clip_by_value(images, 0.0, 255.0)
    if config.random_erasing:
        is_erased = _make_erasing_mask(sample, config.random_erasing, size)
        # Zhong et al. fill the square with noise. The mean adds neither a bright nor a dark spot. A
        # fixed grey value of 128 would stand out in the many darker or brighter images.
        images = tf.where(is_erased, _compute_image_means(images), images)
    return images


def compute_max_erased_size(max_fraction: float, size: int) -> int:
    """Return the height and width of the largest square that random erasing fills, in pixels.

    Args:
        max_fraction: Height of the largest square as a fraction of the image height, in [0, 1].
        size: Height and width of the image, in pixels.
    """
    return round(max_fraction * size)


def _scale_symmetric(uniform: Tensor, limit: float) -> Tensor:
    """Map numbers linearly from [0, 1] to [-limit, limit]; if the limit is 0, exactly to 0."""
    return (2 * uniform - 1) * limit


def _reshape_for_broadcasting(numbers: Tensor) -> Tensor:
    """Reshape a tensor with one number per image from (n,) to (n, 1, 1, 1) for broadcasting."""
    return tf.reshape(numbers, (-1, 1, 1, 1))


def _compute_image_means(images: Tensor) -> Tensor:
    """Return the mean pixel value of each image, of shape (n, 1, 1, 1)."""
    return tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)


def _make_projective_transforms(
    sample: AugmentationSample, config: AugmentationConfig, size: int
) -> Tensor:
    """Combine flip, zoom, shear, rotation and shift of each image into one projective transform.

    The shift is applied last. The other operations leave the centre of the image, (size - 1) / 2,
    in place. If only the flip is enabled, all coefficients are integers, so that pixels are moved
    without interpolation.

    Args:
        sample: Random numbers for each image; 0 and 1 are the ends of an operation's range.
        config: Enabled operations and their ranges.
        size: Height and width of the images, in pixels.

    Returns:
        Coefficients, float32 of shape (n, 8), in the order of the TensorFlow op
        `ImageProjectiveTransformV3`. They map each output pixel to its source position.
    """
    # The operations mirror, scale, shear (x + k * y, with y downwards), rotate (counter-clockwise
    # positive) and shift the image. The inverse is
    # source = centre + A * (pixel - centre - shift), with
    # A = flip * (1 / scale) * shear^-1 * rotation^-1.
    mirror = tf.where(sample.flip < 0.5, -1.0, 1.0) if config.flip else tf.ones_like(sample.flip)
    angle = _scale_symmetric(sample.rotation, math.radians(config.rotation))
    # The code below divides by the scale instead of multiplying by 1 / scale. In a graph TensorFlow
    # would turn 1 / scale into a reciprocal op, which differs in the last bit.
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
    """Apply one projective transform to each image, with bilinear interpolation.

    Args:
        images: Images, float32 of shape (n, size, size, 1).
        transforms: Coefficients of the transforms, of shape (n, 8), in the order of the TensorFlow
            op `ImageProjectiveTransformV3`.
        border: Fill mode outside the image: `constant` (black), `replicate` or `reflect` (the mode
            `symmetric` of `numpy.pad`).
        size: Height and width of the images, in pixels.
    """
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=_FILL_MODES[border],
    )


def _make_erasing_mask(sample: AugmentationSample, max_fraction: float, size: int) -> Tensor:
    """Return a mask of one random square in each image.

    Source: Zhong et al. 2017, "Random Erasing Data Augmentation".

    Args:
        sample: Random numbers, which determine the size and the position of the squares.
        max_fraction: Height of the largest square as a fraction of the image height, in [0, 1].
        size: Height and width of the images, in pixels.

    Returns:
        Mask that is True in the squares, bool of shape (n, size, size, 1).
    """
    square_size = tf.floor(sample.erased_size * (compute_max_erased_size(max_fraction, size) + 1))
    left = tf.floor(sample.erased_left * (size - square_size + 1))
    top = tf.floor(sample.erased_top * (size - square_size + 1))
    position = tf.range(size, dtype=tf.float32)

    def is_within(start: Tensor) -> Tensor:
        """Return a mask of the positions along one axis that lie in the square of each image.

        Args:
            start: First position of each square along this axis, of shape (n,).

        Returns:
            Mask, bool of shape (n, size).
        """
        return (position >= start[:, None]) & (position < (start + square_size)[:, None])

    return (is_within(top)[:, :, None] & is_within(left)[:, None, :])[..., None]
