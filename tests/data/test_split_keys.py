import bisect
import hashlib
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


def cut(keys: list[int], rank: int) -> int:
    """The key of a rank, found as the passes over a dataset find it: never all keys at once."""
    histogram = Counter(key >> SHIFT for key in keys)
    place = find_bucket_of_rank(histogram, rank)
    of_bucket = {} if place is None else {place[0]: [k for k in keys if k >> SHIFT == place[0]]}
    return find_key_at_rank(histogram, of_bucket, rank)


# The very last key is left out: "below it" cannot say "all", and nothing hashes to it.
anywhere = st.integers(LEAST, LAST_KEY - 1)
crowded = st.integers(-8, 8).map(lambda bucket: bucket << SHIFT) | st.integers(-3, 3)


@given(st.lists(anywhere | crowded, unique=True, max_size=60), st.integers(0, 70))
@settings(deadline=None)
def test_exactly_as_many_keys_as_wanted_lie_below_the_cut(keys, rank):
    assert sum(key < cut(keys, rank) for key in keys) == min(rank, len(keys))


@given(st.lists(st.sampled_from([LEAST, -5, -4, 0, 1, 7, 1 << SHIFT, LAST_KEY - 1]), max_size=40))
@settings(deadline=None)
def test_equal_keys_stay_on_one_side(keys):
    for rank in range(len(keys) + 2):
        below = sum(key < cut(keys, rank) for key in keys)
        # As many whole groups as fit: the next one would be too many.
        ends = [0, *(sum(key <= last for key in keys) for last in sorted(set(keys)))]
        assert below == ends[bisect.bisect_right(ends, rank) - 1]


@given(st.lists(anywhere | crowded, max_size=30), st.integers(0, 30), st.randoms())
@settings(deadline=None)
def test_a_cut_depends_on_no_order(keys, rank, random):
    shuffled = random.sample(keys, len(keys))
    assert cut(shuffled, rank) == cut(keys, rank)


def test_locate_names_the_bucket_and_the_rank_within_it():
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


def test_nothing_is_located_among_no_keys():
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
def test_a_share_is_the_nearest_whole_number_with_halves_up(fraction, count, expected):
    found = round_share(fraction, count)
    assert type(found) is int
    assert found == expected


@given(st.integers(0, 1023), st.integers(0, 10**7))
def test_a_share_is_exact_where_the_fraction_is(part, count):
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


def test_a_key_is_the_keyed_hash_that_it_is_said_to_be():
    content, seed = bytes(range(16)), 7
    digest = hashlib.blake2b(content, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    assert compute_sampling_key(content, seed) == int.from_bytes(digest, "little", signed=True)
    assert compute_sampling_key(content, seed) == compute_sampling_key(content, seed)


def test_a_hash_is_of_shape_and_values():
    image = np.arange(96, dtype=np.uint8).reshape(8, 12)
    digest = hashlib.blake2b(struct.pack("<II", 8, 12) + image.tobytes(), digest_size=16).digest()
    assert hash_image(image) == digest
    assert hash_image(image.reshape(12, 8)) != digest
    changed = image.copy()
    changed[7, 11] ^= 1
    assert hash_image(changed) != digest


def test_a_hash_is_the_same_however_the_image_lies_in_memory():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    padded = np.zeros((8, 16), np.uint8)
    padded[:, ::2] = image
    for same in (np.asfortranarray(image), padded[:, ::2], image[::-1].copy()[::-1]):
        assert hash_image(same) == hash_image(image)
