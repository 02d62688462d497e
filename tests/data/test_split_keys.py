import bisect
import struct
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.split_keys import (
    BUCKET_BITS,
    LAST_KEY,
    compute_sampling_key,
    find_bucket_of_rank,
    find_key_at_rank,
    hash_image,
    round_share,
)

LEAST = -LAST_KEY - 1
SHIFT = 64 - BUCKET_BITS


def find_cut_key(keys: list[int], rank: int) -> int:
    """Find the key of a rank as the passes over a dataset do: never with all keys at once."""
    histogram = Counter(key >> SHIFT for key in keys)
    position = find_bucket_of_rank(histogram, rank)
    keys_by_bucket = {}
    if position is not None:
        bucket, _ = position
        keys_by_bucket = {bucket: [key for key in keys if key >> SHIFT == bucket]}
    return find_key_at_rank(histogram, keys_by_bucket, rank)


# Without the very last key: no key lies below it for all keys, and no image hashes to it.
any_key = st.integers(LEAST, LAST_KEY - 1)
crowded_key = st.integers(-8, 8).map(lambda bucket: bucket << SHIFT) | st.integers(-3, 3)


@given(st.lists(any_key | crowded_key, unique=True, max_size=60), st.integers(0, 70))
@settings(deadline=None)
def test_the_number_of_keys_below_the_cut_is_its_rank(keys, rank):
    assert sum(key < find_cut_key(keys, rank) for key in keys) == min(rank, len(keys))


@given(st.lists(st.sampled_from([LEAST, -5, -4, 0, 1, 7, 1 << SHIFT, LAST_KEY - 1]), max_size=40))
@settings(deadline=None)
def test_equal_keys_stay_on_one_side_of_the_cut(keys):
    for rank in range(len(keys) + 2):
        below = sum(key < find_cut_key(keys, rank) for key in keys)
        # As many whole groups as fit: the next one would be too many.
        ends = [0, *(sum(key <= last for key in keys) for last in sorted(set(keys)))]
        assert below == ends[bisect.bisect_right(ends, rank) - 1]


@given(st.lists(any_key | crowded_key, max_size=30), st.integers(0, 30), st.randoms())
@settings(deadline=None)
def test_the_order_of_the_keys_does_not_change_the_cut(keys, rank, random):
    shuffled = random.sample(keys, len(keys))
    assert find_cut_key(shuffled, rank) == find_cut_key(keys, rank)


def test_a_rank_is_located_in_a_bucket_with_its_rank_there():
    histogram = {5: 2, -7: 3, 0: 1}
    assert [find_bucket_of_rank(histogram, rank) for rank in range(7)] == [
        (-7, 0),
        (-7, 1),
        (-7, 2),
        (0, 0),
        (5, 0),
        (5, 1),
        None,
    ]


def test_without_keys_every_rank_has_the_last_key():
    assert find_bucket_of_rank({}, 0) is None
    assert find_key_at_rank({}, {}, 0) == LAST_KEY


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [
        (0.0, 1000, 0),
        (0.1, 0, 0),
        (0.1, 4, 0),
        (0.1, 5, 1),
        (0.1, 14, 1),
        (0.1, 15, 2),
        (0.1, 3995, 400),
        (0.1, 436, 44),
        (0.25, 2, 1),
        (0.5, 1, 1),
        (0.5, 3, 2),
        (0.99, 10, 10),
    ],
)
def test_a_share_is_rounded_to_the_nearest_number_and_halves_up(fraction, count, expected):
    share = round_share(fraction, count)
    assert type(share) is int
    assert share == expected


@given(st.integers(0, 1023), st.integers(0, 10**7))
def test_a_share_of_an_exact_fraction_is_exact(part, count):
    exact = Fraction(part, 1024) * count + Fraction(1, 2)
    assert round_share(part / 1024, count) == exact.numerator // exact.denominator


def test_keys_are_uniform_and_seeds_give_independent_orders():
    contents = [struct.pack("<QQ", number, 0) for number in range(4000)]
    first, second = (
        [compute_sampling_key(content, seed) for content in contents] for seed in (0, 1)
    )
    assert all(LEAST <= key <= LAST_KEY for key in first)
    for keys in (first, second):
        quarters = Counter(key >> 62 for key in keys)
        assert sorted(quarters) == [-2, -1, 0, 1]
        # Five standard deviations of a binomial with a quarter of 4,000.
        assert all(abs(count - 1000) < 5 * 27.4 for count in quarters.values())
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(4000)


# The expected numbers were computed once. Other numbers would assign the images of every dataset to
# other splits than before.
@pytest.mark.parametrize(
    ("content", "seed", "expected"),
    [
        (bytes(range(16)), 7, 5854872555871947084),
        (bytes(range(16)), 8, -7938782774296776657),
        (bytes(16), 7, -8416123505798664744),
    ],
)
def test_the_key_of_a_content_and_a_seed_never_changes(content, seed, expected):
    assert compute_sampling_key(content, seed) == expected
    assert compute_sampling_key(content, seed) == compute_sampling_key(content, seed)


def test_a_hash_depends_on_the_shape_and_every_pixel():
    image = np.arange(96, dtype=np.uint8).reshape(8, 12)
    digest = hash_image(image)
    # Stored in the column image_hash of every dataset.
    assert digest.hex() == "5508e8f138310a83a6edaf9a71f33110"
    assert hash_image(image.reshape(12, 8)) != digest
    changed = image.copy()
    changed[7, 11] ^= 1
    assert hash_image(changed) != digest


def test_a_hash_does_not_depend_on_the_memory_layout():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    padded = np.zeros((8, 16), np.uint8)
    padded[:, ::2] = image
    for equal_image in (np.asfortranarray(image), padded[:, ::2], image[::-1].copy()[::-1]):
        assert hash_image(equal_image) == hash_image(image)
