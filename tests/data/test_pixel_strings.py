import dataclasses
import json
import math
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.pixel_strings import (
    PixelError,
    parse_pixel_rows,
    parse_pixels,
    square_image_size,
)

ORDINARY = [
    Normalization.centered(),
    Normalization.zero_to_one(),
    Normalization.standard(4, 508, 97200),
]


def slowly(text: bytes, count: int) -> list[int] | Outcome:
    """One pixel string, a token at a time: the values, or the first fault that applies."""
    tokens = text.split()
    if not tokens:
        return Outcome.EMPTY_FIELD
    if not all(re.fullmatch(rb"[+-]?[0-9]+", token) for token in tokens):
        return Outcome.PIXEL_TOKEN
    values = [int(token) for token in tokens]
    if any(not 0 <= value <= 255 for value in values):
        return Outcome.PIXEL_RANGE
    return values if len(values) == count else Outcome.PIXEL_COUNT


def parse(texts: list[bytes], count: int) -> list[list[int] | Outcome]:
    """What `parse_pixel_rows` makes of each row."""
    values, errors = parse_pixel_rows(texts, count)
    faults = errors.details
    assert values.dtype == np.uint8
    assert values.shape == (len(texts), count)
    assert not values[list(faults)].any()
    assert np.flatnonzero(errors.outcomes != Outcome.KEPT).tolist() == sorted(faults)
    assert set(faults) <= set(range(len(texts)))
    return [
        Outcome(int(errors.outcomes[row])) if row in faults else values[row].tolist()
        for row in range(len(texts))
    ]


token = st.one_of(
    st.integers(0, 255).map(str),
    st.integers(0, 255).map(str),
    st.integers(-3, 300).map(str),
    st.integers().map(str),
    st.sampled_from(["255", "256", "00", "01", "0255", "1234", "+5", "-0", "-1", "1.5", "1e2"]),
    st.sampled_from(["0x1", "1_0", "+", "-", "--1", "5-", "5+3"]),
    st.sampled_from(["nan", "inf", "e", ".", "1,2", "x", '"', "\0", "1\0", "\x1c", "9" * 30]),
    st.sampled_from(
        [
            "\N{ARABIC-INDIC DIGIT THREE}",
            "\N{SUPERSCRIPT TWO}",
            "\N{NO-BREAK SPACE}",
            "\N{MINUS SIGN}1",
        ]
    ),
).map(str.encode)
gap = st.sampled_from([b" "] * 8 + [b"  ", b"\t", b"\r\n", b"\x0b", b"\x0c", b"\xa0", b"\0", b","])
edge = st.sampled_from([b""] * 8 + [b" ", b"\t", b"\r", b"\n", b"\0", b'"'])


@st.composite
def strings(draw: st.DrawFn, count: int) -> bytes:
    """A pixel string, sound or not, of about as many tokens."""
    many = draw(st.sampled_from([count] * 4 + [0, 1, count - 1, count + 1]))
    parts = [draw(edge)]
    for index in range(many):
        parts += [draw(gap)] if index else []
        parts += [draw(token)]
    return b"".join([*parts, draw(edge)])


@given(st.lists(strings(4) | st.binary(max_size=12), max_size=6))
@settings(max_examples=400, deadline=None)
def test_rows_parse_as_they_do_token_by_token(texts):
    assert parse(texts, 4) == [slowly(text, 4) for text in texts]


@given(st.text("0123456789+- \t", max_size=16).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_nothing_is_accepted_that_int_refuses(text):
    try:
        expected = [int(part) for part in text.split()]
    except ValueError:
        expected = None
    try:
        found = parse_pixels(text).tolist()
    except PixelError:
        return
    assert found == expected


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 31, 32, 33, 64, 65, 100]),
    st.lists(st.tuples(st.integers(0, 99), strings(9)), max_size=3),
)
@settings(max_examples=80, deadline=None)
def test_a_bad_row_among_many_costs_no_other_row(seed, rows, odd):
    values = np.random.default_rng(seed).integers(0, 256, (rows, 9))
    texts = [" ".join(map(str, row)).encode() for row in values.tolist()]
    for place, text in odd:
        texts[place % rows] = text
    assert parse(texts, 9) == [slowly(text, 9) for text in texts]


def test_every_value_parses_beside_every_other():
    numbers = list(range(256))
    texts = [" ".join(map(str, numbers[k:] + numbers[:k])).encode() for k in range(256)]
    assert parse(texts, 256) == [numbers[k:] + numbers[:k] for k in range(256)]


@pytest.mark.parametrize("before", [0, 2, 9, 12, 99, 100, 255])
def test_a_number_takes_no_digit_from_the_one_before(before):
    # One row at a time: where a single row is odd, those around it are parsed slowly as well.
    for value in range(1000):
        text = b"%d %d" % (before, value)
        assert parse([text], 2) == [slowly(text, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0 255", [0, 255]),
        (b"01 002", [1, 2]),
        (b"0007 +5", [7, 5]),
        (b"-0 1", [0, 1]),
        (b"1\t2", [1, 2]),
        (b"1  2", [1, 2]),
        (b" 1 2", [1, 2]),
        (b"1 2 ", [1, 2]),
        (b"1 2\r", [1, 2]),
        (b"1 2\r\n", [1, 2]),
        (b"1 256", Outcome.PIXEL_RANGE),
        (b"1 -1", Outcome.PIXEL_RANGE),
        (b"1 1000", Outcome.PIXEL_RANGE),
        (b"300 1 2", Outcome.PIXEL_RANGE),
        (b"1 18446744073709551617", Outcome.PIXEL_RANGE),
        (b"-9223372036854775809 1", Outcome.PIXEL_RANGE),
        (b"1.5 2", Outcome.PIXEL_TOKEN),
        (b"1e2 2", Outcome.PIXEL_TOKEN),
        (b"1 2x", Outcome.PIXEL_TOKEN),
        (b"x 300", Outcome.PIXEL_TOKEN),
        (b"1,2", Outcome.PIXEL_TOKEN),
        (b"1_0 2", Outcome.PIXEL_TOKEN),
        (b"0x1 2", Outcome.PIXEL_TOKEN),
        (b"nan 2", Outcome.PIXEL_TOKEN),
        ("\N{ARABIC-INDIC DIGIT ONE} 2".encode(), Outcome.PIXEL_TOKEN),
        ("1\N{NO-BREAK SPACE}2".encode(), Outcome.PIXEL_TOKEN),
        (b"1\x002", Outcome.PIXEL_TOKEN),
        (b"1 2\x00", Outcome.PIXEL_TOKEN),
        (b"\x00", Outcome.PIXEL_TOKEN),
        (b"1 -", Outcome.PIXEL_TOKEN),
        (b"+ 2", Outcome.PIXEL_TOKEN),
        (b"1 - 2", Outcome.PIXEL_TOKEN),
        (b"1", Outcome.PIXEL_COUNT),
        (b"1 2 3", Outcome.PIXEL_COUNT),
        (b"1234", Outcome.PIXEL_RANGE),
        (b"", Outcome.EMPTY_FIELD),
        (b" \t\r\n", Outcome.EMPTY_FIELD),
    ],
)
def test_one_string_parses_strictly(text, expected):
    # Alone, and where its neighbours are sound.
    assert parse([text], 2) == [expected]
    assert parse([b"7 8", text, b"9 10"], 2) == [[7, 8], expected, [9, 10]]


@pytest.mark.parametrize(
    "texts",
    [
        [b"1 2 3", b"4 5 6 7 8"],
        [b"1 2 3 4 5", b"6 7 8"],
        [b"1 2 3 4", b"1 2 3", b"1 2 3 4 5", b"5 6 7 8"],
        [b"1 2 3 ", b"4 5 6 7"],
        [b"", b"1 2 3 4 5 6 7 8"],
        [b"1 2 3 4 5 6 7 8", b""],
    ],
)
def test_a_long_row_lends_no_pixel_to_a_short_one(texts):
    assert parse(texts, 4) == [slowly(text, 4) for text in texts]


def test_no_rows_give_no_values():
    assert parse([], 4) == []


def test_a_string_of_unknown_length_gives_what_it_holds():
    found = parse_pixels(b"3 2 1")
    assert found.dtype == np.uint8
    assert found.tolist() == [3, 2, 1]


def test_a_fault_says_what_was_got_and_what_was_expected():
    _, errors = parse_pixel_rows([b"1 2 3", b"1 300", b"-4 2"], 2)
    assert errors.details == {
        0: "3 pixels, expected 2",
        1: "values from 1 to 300",
        2: "values from -4 to 2",
    }


@pytest.mark.parametrize(
    ("count", "side"),
    [(64, 8), (784, 28), (2304, 48), (2303, None), (2305, None), (49, None), (0, None), (1, None)],
)
def test_a_square_has_a_side_from_eight_up(count, side):
    assert square_image_size(count) == side


@given(st.integers(0, 10**12))
@example(10**12)
def test_a_side_squared_is_the_count(count):
    side = square_image_size(count)
    root = math.isqrt(count)
    assert side == (root if root**2 == count and root >= 8 else None)


def test_centered_is_exact():
    expected = (np.arange(256, dtype=np.float64) - 128) / 128
    table = Normalization.centered().lookup_table()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table.astype(np.float64), expected)


def test_unit_is_within_one_unit_in_the_last_place():
    table = Normalization.zero_to_one().lookup_table()
    assert table.dtype == np.float32
    np.testing.assert_array_max_ulp(table, (np.arange(256) / 255).astype(np.float32), maxulp=1)
    assert (table[0], table[255]) == (0, 1)


pixel_sets = st.lists(st.integers(0, 255), min_size=1, max_size=40).map(np.array)


def sums(pixels: np.ndarray) -> tuple[int, int, int]:
    """What `Normalization.standard` takes."""
    values = [int(value) for value in pixels.ravel()]
    return len(values), sum(values), sum(value * value for value in values)


@given(pixel_sets)
@example(np.array([0] * 39 + [1]))
@example(np.array([254] + [255] * 39))
@settings(deadline=None)
def test_standard_is_what_numpy_makes_of_mean_and_deviation(pixels):
    table = Normalization.standard(*sums(pixels)).lookup_table()
    deviation = pixels.std() if len(set(pixels.tolist())) > 1 else 1.0
    expected = (np.arange(256) - pixels.mean()) / deviation
    np.testing.assert_allclose(table, expected, rtol=0, atol=3e-7 * np.abs(expected).max())


def test_standard_takes_sums_that_no_float_can_hold():
    # 30 million images of 48x48, of which every 7th pixel is 1 and the others are 0.
    count, ones = 30_000_000 * 2304, 30_000_000 * 2304 // 7
    mean = Fraction(ones, count)
    scale = 1 / math.sqrt(mean - mean**2)
    found = Normalization.standard(count, ones, ones)
    assert found == Normalization(
        "standard", float(np.float32(scale)), float(np.float32(-float(mean) * scale))
    )


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_standard_of_one_value_only_takes_the_mean_away(value):
    found = Normalization.standard(*sums(np.full(2304, value)))
    assert found == Normalization("standard", 1.0, float(-value))


@given(pixel_sets)
@settings(deadline=None)
def test_numbers_are_float32_and_json_brings_back_their_bits(pixels):
    for made in (*ORDINARY, Normalization.standard(*sums(pixels))):
        again = Normalization(**json.loads(json.dumps(dataclasses.asdict(made))))
        assert again == made
        assert (float(np.float32(made.scale)), float(np.float32(made.offset))) == (
            made.scale,
            made.offset,
        )
        assert again.lookup_table().tobytes() == made.lookup_table().tobytes()


@given(pixel_sets)
@settings(deadline=None)
def test_restore_brings_back_all_256_pixels(pixels):
    every = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(4, 8, 8)
    for made in (*ORDINARY, Normalization.standard(*sums(pixels))):
        assert (np.diff(made.lookup_table()) > 0).all()
        restored = made.restore_pixels(made.lookup_table()[every])
        assert restored.dtype == np.uint8
        np.testing.assert_array_equal(restored, every)


@pytest.mark.parametrize("made", ORDINARY, ids=lambda made: made.kind)
@pytest.mark.parametrize("wrong", ["above", "below", "between", "nan", "huge", "tiny"])
def test_restore_refuses_what_is_not_in_the_table(made, wrong):
    table = made.lookup_table()
    values = table[[0, 7, 255]].copy()
    values[1] = {
        "above": np.nextafter(table[7], np.float32(np.inf)),
        "below": np.nextafter(table[7], np.float32(-np.inf)),
        "between": (table[7] + table[8]) / 2,
        "nan": np.nan,
        "huge": sys.float_info.max / 1e300,
        "tiny": -1e30,
    }[wrong]
    with pytest.raises(ValueError, match="not produced by this normalisation"):
        made.restore_pixels(values)
