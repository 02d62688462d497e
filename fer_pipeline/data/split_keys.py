"""Who goes where: decisions by the content of an image, never by its place or its neighbours.

Every image has a 64-bit key: a seeded hash of its content. Within a class the images stand in the
order of their keys; the first ones are validation, the next ones test, and what follows is
training. So the parts are exact, they depend neither on the order of rows nor on how they are
partitioned, and copies of an image, which share a key, stay together.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BUCKET_BITS = 12
"""A class's keys are counted in 2**BUCKET_BITS equal ranges, then ranked within one of them."""

LAST_KEY = 2**63 - 1


def image_hash(image: npt.NDArray[np.uint8]) -> bytes:
    """The identity of an image: BLAKE2b-128 of its shape and grey values, before any resizing.

    Args:
        image: uint8 of shape (height, width).

    Returns:
        16 bytes, the same for two images exactly if all their pixels are.
    """
    digest = hashlib.blake2b(struct.pack("<II", *image.shape), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def sampling_key(content: bytes, seed: int) -> int:
    """The place of an image among its class, a uniform whole number in -2**63 .. 2**63 - 1.

    Args:
        content: What `image_hash` gives.
        seed: Another seed gives another, independent order.
    """
    digest = hashlib.blake2b(content, digest_size=8, key=struct.pack("<q", seed)).digest()
    return int.from_bytes(digest, "little", signed=True)


def rounded_share(fraction: float, count: int) -> int:
    """The whole number of `count` images that comes nearest to a fraction, halves rounded up."""
    return int(np.floor(fraction * count + 0.5))


def find_rank(histogram: Mapping[int, int], rank: int) -> tuple[int, int] | None:
    """Finds the key of a rank in a histogram of keys.

    Args:
        histogram: How many keys each bucket holds; the buckets' order is the keys'.
        rank: 0-based.

    Returns:
        The bucket that holds the key, and the key's rank within it; None where there are not so
        many keys.
    """
    for bucket in sorted(histogram):
        if rank < histogram[bucket]:
            return bucket, rank
        rank -= histogram[bucket]
    return None


def key_at_rank(histogram: Mapping[int, int], keys: Mapping[int, Sequence[int]], rank: int) -> int:
    """The key below which lie `rank` keys, or as many as whole groups of equal keys allow.

    Args:
        histogram: How many keys each bucket holds.
        keys: The keys of the bucket in which the rank falls, in any order.
        rank: How many keys are wanted.
    """
    place = find_rank(histogram, rank)
    if place is None:
        return LAST_KEY
    bucket, within = place
    return sorted(keys[bucket])[within]
