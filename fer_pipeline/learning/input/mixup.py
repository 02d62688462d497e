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

    An image x becomes l * x + (1 - l) * partner, and its target is blended in the same way (Zhang
    et al. 2017, "mixup"). The partners are the images of the batch in random order. The weight l is
    sampled from Beta(alpha, alpha) for each image.

    Args:
        alpha: Parameter of the Beta distribution, above 0. If alpha is 1, the weights are uniformly
            distributed. If alpha is near 0, most weights are near 0 or 1.

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
        # These weights are 1 - l, which has the same distribution as l. The authors' code samples
        # one l per batch, which can make a whole step easy or hard.
        partner_weights = _sample_beta(alpha, image_count, seeds[1])
        image_weights = tf.reshape(partner_weights, (-1, 1, 1, 1))
        return (
            images + image_weights * (tf.gather(images, partners) - images),
            targets + partner_weights[:, None] * (tf.gather(targets, partners) - targets),
        )

    return mix


def _sample_beta(alpha: float, count: Tensor, seed: Tensor) -> Tensor:
    """Return random samples of the distribution Beta(alpha, alpha), float32 of shape (count,).

    Small values of `alpha`, such as 0.01, do not cause an underflow.
    """
    # A sample is g / (g + h) for two samples g and h of Gamma(alpha). If alpha is small, both would
    # underflow to 0, so their logarithms are computed. A sample of Gamma(alpha) is a sample of
    # Gamma(alpha + 1) times u ** (1 / alpha), with u uniform in (0, 1] (Marsaglia and Tsang 2000).
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2, count), seeds[0], alpha=alpha + 1.0)
    # TensorFlow samples from [0, 1), so these numbers are above 0 and have finite logarithms.
    uniform = 1 - tf.random.stateless_uniform((2, count), seeds[1], alg="philox")
    logs = tf.math.log(gammas) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logs[0] - logs[1])
