"""Sampling keys: the split of an image follows from its content, not its place or neighbours.

Every image has a 64-bit key, a seeded hash of its content. Within a class the images are ordered by
their keys; the first ones are validation, the next ones test, and the remaining ones training. So
the splits have exact sizes, depend neither on the order of rows nor on the partitioning, and copies
of an image, which share a key, stay together.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BUCKET_BITS = 12
"""Keys of a class are counted in 2**BUCKET_BITS equal ranges, then ranked within one of them."""

LAST_KEY = 2**63 - 1
"""The largest key."""


def hash_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Return the identity of an image: BLAKE2b-128 of its shape and grey values before resizing.

    Args:
        image: uint8 of shape (height, width).

    Returns:
        16 bytes, equal for two images exactly if all their pixels are.
    """
    digest = hashlib.blake2b(struct.pack("<II", *image.shape), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def hash_images(
    images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    selected: npt.NDArray[np.bool_],
) -> list[bytes | None]:
    """Return the identity of each selected image.

    Args:
        images: uint8 of shape (n, height, width), or one array of shape (height, width) for each.
        selected: The images that are hashed, bool of shape (n,).

    Returns:
        The hash of each image, None for one that is not selected.
    """
    pairs = zip(images, selected.tolist(), strict=True)
    return [hash_image(image) if is_selected else None for image, is_selected in pairs]


def compute_sampling_key(content: bytes, seed: int) -> int:
    """Return the key that orders an image within its class, uniform in -2**63 .. 2**63 - 1.

    Args:
        content: Hash of the image, as `hash_image` returns it.
        seed: Seed of the order; another seed gives an independent order.
    """
    digest = hashlib.blake2b(content, digest_size=8, key=struct.pack("<q", seed)).digest()
    return int.from_bytes(digest, "little", signed=True)


def round_share(fraction: float, count: int) -> int:
    """Return the whole number of images nearest to a fraction of `count`, halves rounded up."""
    return int(np.floor(fraction * count + 0.5))


def find_rank(histogram: Mapping[int, int], rank: int) -> tuple[int, int] | None:
    """Find the key of a rank in a histogram of keys.

    Args:
        histogram: Number of keys in each bucket; buckets are ordered as their keys are.
        rank: 0-based rank among all keys.

    Returns:
        The bucket that holds the key, and the key's rank within it; None if there are fewer keys.
    """
    for bucket in sorted(histogram):
        if rank < histogram[bucket]:
            return bucket, rank
        rank -= histogram[bucket]
    return None


def find_key_at_rank(
    histogram: Mapping[int, int], keys: Mapping[int, Sequence[int]], rank: int
) -> int:
    """Return the key below which `rank` keys lie, or as many as whole groups of equal keys allow.

    Args:
        histogram: Number of keys in each bucket.
        keys: The keys of the bucket that the rank falls into, in any order.
        rank: Number of keys that shall lie below.
    """
    position = find_rank(histogram, rank)
    if position is None:
        return LAST_KEY
    bucket, rank_in_bucket = position
    return sorted(keys[bucket])[rank_in_bucket]
