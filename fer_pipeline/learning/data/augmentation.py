"""What each image of a batch is changed by while it is trained on, drawn anew each time.

All of it is a pure function of a seed, so that a resumed run draws what the first would have. The
variants that the Spark job writes to disk are `fer_pipeline.augmentation`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fer_pipeline.config.training import AugmentationConfig

Tensor = Any

GEOMETRIC = ("flip", "rotation", "shift", "zoom", "shear")
"""Operations that move pixels: together they are one resampling."""

OPERATIONS = (*GEOMETRIC, "contrast", "brightness", "random_erasing")
"""All operations, keys of `training.augmentation`, in the order in which they are applied."""

_FILL_MODES = {"constant": "CONSTANT", "replicate": "NEAREST", "reflect": "REFLECT"}
# What is folded into the seed, so that the two draw apart from each other from one seed.
_AUGMENTATION, _MIXUP = 1, 2


class Draws(NamedTuple):
    """The random numbers of a batch: each float32 of shape (n,), uniform in [0, 1).

    Every operation has its own, on or off: one that is turned on leaves the others' as they were.
    0 and 1 are the ends of an operation's range; for all but the erased square, 0.5 is no change.
    """

    flip: Tensor  # mirrored below 0.5
    rotation: Tensor
    shift_right: Tensor
    shift_down: Tensor
    zoom: Tensor
    shear: Tensor
    contrast: Tensor
    brightness: Tensor
    erased_side: Tensor  # 0 is no square
    erased_left: Tensor
    erased_top: Tensor


def active(chosen: AugmentationConfig) -> list[str]:
    """The operations that are on, in the order of `OPERATIONS`."""
    return [name for name in OPERATIONS if getattr(chosen, name)]


def augmenter(chosen: AugmentationConfig, size: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Makes the function that changes the images of a batch, each in its own way.

    Args:
        chosen: The operations and their ranges.
        size: The side of the images, in pixels.

    Returns:
        A function of images, float32 of shape (n, size, size, 1) with pixel values in 0..255, and a
        seed, int32 or int64 of shape (2,), to images of the same kind; the same in eager mode, in a
        `tf.function` and in `tf.data`. None where no operation is on.
    """
    if not active(chosen):
        return None

    def augment(images: Tensor, seed: Tensor) -> Tensor:
        shape = (len(Draws._fields), tf.shape(images)[0])
        own = tf.random.experimental.stateless_fold_in(seed, _AUGMENTATION)
        drawn = tf.random.stateless_uniform(shape, own, alg="philox")
        return changed(images, Draws(*tf.unstack(drawn)), chosen, size)

    return augment


def changed(images: Tensor, draws: Draws, chosen: AugmentationConfig, size: int) -> Tensor:
    """The images after all operations that are on.

    Args:
        images: float32 of shape (n, size, size, 1), pixel values in 0..255.
        draws: Where in its range each operation stands.
        chosen: The operations and their ranges.
        size: The side of the images, in pixels.

    Returns:
        Images of the same shape, type and range.
    """
    if any(getattr(chosen, name) for name in GEOMETRIC):
        images = _resampled(images, _sources(draws, chosen, size), chosen.border, size)
    if chosen.contrast:
        mean = _mean(images)
        images = mean + (images - mean) * _each(1 + _either_way(draws.contrast, chosen.contrast))
    if chosen.brightness:
        images += _each(_either_way(draws.brightness, 255 * chosen.brightness))
    images = tf.clip_by_value(images, 0.0, 255.0)
    if chosen.random_erasing:
        images = tf.where(_erased(draws, chosen.random_erasing, size), _mean(images), images)
    return images


def largest_erased(erasing: float, size: int) -> int:
    """The longest side of an erased square, in pixels: a part of the image's side, rounded."""
    return round(erasing * size)


def _either_way(drawn: Tensor, most: float) -> Tensor:
    """Uniform in -most..most; exactly 0 where that is 0."""
    return (2 * drawn - 1) * most


def _each(values: Tensor) -> Tensor:
    """A value per image, of shape (n,), in a shape that goes with images."""
    return tf.reshape(values, (-1, 1, 1, 1))


def _mean(images: Tensor) -> Tensor:
    return tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)


def _sources(draws: Draws, chosen: AugmentationConfig, size: int) -> Tensor:
    """Where each pixel comes from, as the op's eight numbers per image.

    An image is mirrored, scaled, sheared (x + k * y, with y downwards), rotated (counter-clockwise
    positive), all about its centre (size - 1) / 2, and shifted. A resampling asks for the inverse:
    source = centre + A * (pixel - centre - shift), A = flip * (1 / scale) * shear^-1 * rotation^-1.
    Where nothing but a flip is on, all eight are whole numbers, and no pixel value changes.
    """
    mirror = tf.where(draws.flip < 0.5, -1.0, 1.0) if chosen.flip else tf.ones_like(draws.flip)
    angle = _either_way(draws.rotation, math.radians(chosen.rotation))
    # Divided by, and not multiplied by 1 / scale: in a graph TensorFlow makes a reciprocal of that,
    # which differs in the last bit.
    scale = 1 + _either_way(draws.zoom, chosen.zoom)
    shear = _either_way(draws.shear, chosen.shear)
    right = _either_way(draws.shift_right, chosen.shift * size)
    down = _either_way(draws.shift_down, chosen.shift * size)
    cos, sin = tf.cos(angle), tf.sin(angle)
    xx, xy = mirror * (cos - shear * sin) / scale, mirror * (-sin - shear * cos) / scale
    yx, yy = sin / scale, cos / scale
    centre = (size - 1) / 2
    x = centre - xx * (centre + right) - xy * (centre + down)
    y = centre - yx * (centre + right) - yy * (centre + down)
    zero = tf.zeros_like(x)
    return tf.stack([xx, xy, x, yx, yy, y, zero, zero], axis=1)


def _resampled(images: Tensor, sources: Tensor, border: str, size: int) -> Tensor:
    """Bilinear, once. `reflect` repeats the outermost pixel, as this op does."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=sources,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=_FILL_MODES[border],
    )


def _erased(draws: Draws, erasing: float, size: int) -> Tensor:
    """The pixels of a square within each image, bool of shape (n, size, size, 1).

    They get the image's mean (Zhong et al. 2017, "Random Erasing", with the mean in place of
    noise): it is neither a bright nor a dark mark, whatever the image's light and whatever the
    normalisation, whereas a fixed 128 would be one on the many faces that are darker or brighter.
    """
    side = tf.floor(draws.erased_side * (largest_erased(erasing, size) + 1))
    left = tf.floor(draws.erased_left * (size - side + 1))
    top = tf.floor(draws.erased_top * (size - side + 1))
    place = tf.range(size, dtype=tf.float32)

    def between(start: Tensor) -> Tensor:
        return (place >= start[:, None]) & (place < (start + side)[:, None])

    return (between(top)[:, :, None] & between(left)[:, None, :])[..., None]


def mixup(alpha: float) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Makes the function that mixes images, and their targets, with others of the batch.

    Zhang et al. 2017, "mixup": x' = l * x + (1 - l) * other, and the targets alike, with l from
    Beta(alpha, alpha). Each image has its own l, as in the paper's formula (its code draws one per
    batch): one draw does not make a whole step easy or hard. The others are the batch in random
    order; an image that meets itself stays as it is, so that a batch of one is unchanged.

    Args:
        alpha: Above 0. Near 0 one image of each pair has nearly all; 1 is uniform.

    Returns:
        A function of images, float32 of shape (n, size, size, 1), pixel values or normalised,
        targets, float32 of shape (n, classes), and a seed, int32 or int64 of shape (2,), to images
        and targets of the same kind.
    """

    def mix(images: Tensor, targets: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        own = tf.random.experimental.stateless_fold_in(seed, _MIXUP)
        seeds = tf.random.experimental.stateless_split(own, 2)
        many = tf.shape(images)[0]
        others = tf.random.experimental.stateless_shuffle(tf.range(many), seeds[0], alg="philox")
        # 1 - l, which is of the same distribution.
        part = _beta(alpha, many, seeds[1])
        return (
            images + _each(part) * (tf.gather(images, others) - images),
            targets + part[:, None] * (tf.gather(targets, others) - targets),
        )

    return mix


def _beta(alpha: float, many: Tensor, seed: Tensor) -> Tensor:
    """Draws from Beta(alpha, alpha): g / (g + h), of two gammas.

    In logarithms, with gamma(a) = gamma(a + 1) * u ** (1 / a) (Marsaglia and Tsang 2000): for a
    small alpha both gammas would underflow, and give 1/2 where 0 or 1 is meant.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2, many), seeds[0], alpha=alpha + 1.0)
    # 1 - u is in (0, 1].
    uniform = 1 - tf.random.stateless_uniform((2, many), seeds[1], alg="philox")
    logs = tf.math.log(gammas) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logs[0] - logs[1])
