"""Sampling keys, which assign images to splits by their content.

The sampling key of an image is a 64-bit number, a seeded hash of the image's content. Within a
class, the images are ordered by their keys: the first images are validation, the next are test, and
the remaining are training. The splits therefore have exact sizes and depend neither on the order of
the rows nor on the partitioning. Copies of an image have the same key and stay together.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BUCKET_BITS = 12
"""Binary logarithm of the number of buckets, equal ranges of keys in which the keys are counted."""

LAST_KEY = 2**63 - 1
"""The largest key."""


def hash_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Compute the BLAKE2b-128 hash (16 bytes) of an image's shape and pixels.

    Args:
        image: Grey image before resizing, uint8 of shape (height, width).
    """
    digest = hashlib.blake2b(struct.pack("<II", *image.shape), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def hash_images(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    selected: npt.NDArray[np.bool_],
) -> list[bytes | None]:
    """Compute the BLAKE2b-128 hash of each selected image's shape and pixels.

    Args:
        images: uint8 of shape (n, height, width), or a sequence of n arrays of shape
            (height, width) if the sizes differ.
        selected: Whether each image is selected, bool of shape (n,).

    Returns:
        n hashes of 16 bytes; None for images that are not selected.
    """
    pairs = zip(images, selected.tolist(), strict=True)
    return [hash_image(image) if is_selected else None for image, is_selected in pairs]


def compute_sampling_key(content: bytes, seed: int) -> int:
    """Compute the sampling key of an image: a pseudo-random number for its assignment to a split.

    The key depends only on the image's content and the seed. The keys of different images are
    uniformly distributed in [-2**63, 2**63 - 1].

    Args:
        content: Hash of the image, 16 bytes.
        seed: Seed of the keys; different seeds give independent orders of the images.
    """
    digest = hashlib.blake2b(content, digest_size=8, key=struct.pack("<q", seed)).digest()
    return int.from_bytes(digest, "little", signed=True)


def round_share(fraction: float, count: int) -> int:
    """Return `fraction * count`, rounded to a whole number of images; halves are rounded up.

    Args:
        fraction: Fraction of the images, in [0, 1].
        count: Number of images.
    """
    return int(np.floor(fraction * count + 0.5))


def find_bucket_of_rank(histogram: Mapping[int, int], rank: int) -> tuple[int, int] | None:
    """Find the bucket of a histogram that contains the sampling key with a given rank.

    Args:
        histogram: Number of keys in each bucket, by bucket number; the keys of a bucket are lower
            than those of the next bucket.
        rank: 0-based rank of the key among all keys in ascending order.

    Returns:
        The bucket number, and the 0-based rank of the key among the keys of the bucket; None if
        there are at most `rank` keys.
    """
    for bucket in sorted(histogram):
        if rank < histogram[bucket]:
            return bucket, rank
        rank -= histogram[bucket]
    return None


def find_key_at_rank(
    histogram: Mapping[int, int], keys: Mapping[int, Sequence[int]], rank: int
) -> int:
    """Return the sampling key at a given position among all keys in ascending order.

    Args:
        histogram: Number of keys in each bucket, by bucket number; the keys of a bucket are lower
            than those of the next bucket.
        keys: Keys by bucket number, in any order; only the bucket that contains the rank is needed.
        rank: 0-based position of the key.

    Returns:
        The key; LAST_KEY, the largest possible key, if there are at most `rank` keys.
    """
    position = find_bucket_of_rank(histogram, rank)
    if position is None:
        return LAST_KEY
    bucket, rank_in_bucket = position
    return sorted(keys[bucket])[rank_in_bucket]
