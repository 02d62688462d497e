"""Mixup: training images that are blends of two images, and their targets."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from fer_pipeline.learning.types import Tensor

# Folded into the seed of a batch: random numbers independent of the augmentation's.
_RANDOM_STREAM = 2


def make_mixup_fn(alpha: float) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function that blends the images of a batch, and their targets, in pairs.

    Zhang et al. 2017, "mixup": x' = l * x + (1 - l) * partner, and the targets alike, with l from
    Beta(alpha, alpha). Each image has its own l, as in the paper's formula (its code samples one
    per batch), so that no whole step is easy or hard by one sample. The partners are the batch in
    random order. An image whose partner is itself does not change, nor does a batch of one.

    Args:
        alpha: Parameter of the Beta distribution, above 0. Near 0 one image of each pair has nearly
            all of the weight; with 1 the weight is uniform.

    Returns:
        A function of images, float32 of shape (n, size, size, 1), pixel values or normalized,
        targets, float32 of shape (n, classes), and a seed, int32 or int64 of shape (2,), to images
        and targets of the same kind.
    """

    def mix(images: Tensor, targets: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        own_seed = tf.random.experimental.stateless_fold_in(seed, _RANDOM_STREAM)
        seeds = tf.random.experimental.stateless_split(own_seed, 2)
        count = tf.shape(images)[0]
        partners = tf.random.experimental.stateless_shuffle(tf.range(count), seeds[0], alg="philox")
        # 1 - l, which has the same distribution as l.
        partner_share = _sample_beta(alpha, count, seeds[1])
        per_image = tf.reshape(partner_share, (-1, 1, 1, 1))
        return (
            images + per_image * (tf.gather(images, partners) - images),
            targets + partner_share[:, None] * (tf.gather(targets, partners) - targets),
        )

    return mix


def _sample_beta(alpha: float, count: Tensor, seed: Tensor) -> Tensor:
    """Return samples of Beta(alpha, alpha), of shape (count,): g / (g + h), of two gammas.

    The computation is in logarithms, with gamma(a) = gamma(a + 1) * u ** (1 / a) (Marsaglia and
    Tsang 2000). For a small alpha both gammas would underflow, and give 1/2 in place of 0 or 1.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    gammas = tf.random.stateless_gamma((2, count), seeds[0], alpha=alpha + 1.0)
    # 1 - u is in (0, 1].
    uniform = 1 - tf.random.stateless_uniform((2, count), seeds[1], alg="philox")
    logs = tf.math.log(gammas) + tf.math.log(uniform) / alpha
    return tf.sigmoid(logs[0] - logs[1])
