"""Mixup: training on blends of two images and of their targets."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from fer_pipeline.learning.types import Tensor

# Folded into the seed of a batch, so that the random numbers are independent of those of the
# augmentation.
_RANDOM_STREAM = 2


def make_mixup_fn(alpha: float) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function that blends each image of a batch with a random image of the same batch.

    The random image is called the partner. Zhang et al. 2017, "mixup":
    x' = l * x + (1 - l) * partner, and likewise for the targets, with l sampled from
    Beta(alpha, alpha). Each image has its own l, as in the paper's formula. The authors' code
    samples one l per batch, which can make a whole step easy or hard. The partners are the images
    of the batch in random order. An image that is its own partner does not change.

    Args:
        alpha: Parameter of the Beta distribution, above 0. Near 0, one image of each pair has
            nearly all of the weight. With 1, the weight is uniformly distributed.

    Returns:
        A function `(images, targets, seed) -> (images, targets)`. Images: float32 of shape
        (n, size, size, 1), raw or normalised. Targets: float32 of shape (n, classes). Seed: int32
        or int64 of shape (2,). The outputs have the same shapes and types as the inputs.
    """

    def mix(images: Tensor, targets: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """Blend each image of a batch, and its target, with a random image of the same batch."""
        stream_seed = tf.random.experimental.stateless_fold_in(seed, _RANDOM_STREAM)
        seeds = tf.random.experimental.stateless_split(stream_seed, 2)
        image_count = tf.shape(images)[0]
        partners = tf.random.experimental.stateless_shuffle(
            tf.range(image_count), seeds[0], alg="philox"
        )
        # These weights are 1 - l, which has the same distribution as l.
        partner_weights = _sample_beta(alpha, image_count, seeds[1])
        image_weights = tf.reshape(partner_weights, (-1, 1, 1, 1))
        return (
            images + image_weights * (tf.gather(images, partners) - images),
            targets + partner_weights[:, None] * (tf.gather(targets, partners) - targets),
        )

    return mix


def _sample_beta(alpha: float, count: Tensor, seed: Tensor) -> Tensor:
    """Return random samples of the distribution Beta(alpha, alpha), float32 of shape (count,).

    A sample is g / (g + h) for two samples g and h of the distribution Gamma(alpha). If alpha is
    small, g and h would both underflow to 0. For this reason their logarithms are computed: a
    sample of Gamma(alpha) is a sample of Gamma(alpha + 1) times u ** (1 / alpha), with u uniform in
    (0, 1] (Marsaglia and Tsang 2000).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2, count), seeds[0], alpha=alpha + 1.0)
    # TensorFlow samples from [0, 1), so these numbers are above 0 and have finite logarithms.
    uniform = 1 - tf.random.stateless_uniform((2, count), seeds[1], alg="philox")
    logs = tf.math.log(gammas) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logs[0] - logs[1])
