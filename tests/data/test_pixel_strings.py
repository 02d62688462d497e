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


def parse_slowly(text: bytes, count: int) -> list[int] | Outcome:
    """Parse a pixel string token by token; return the pixels or the first error that applies."""
    tokens = text.split()
    if not tokens:
        return Outcome.EMPTY_FIELD
    if not all(re.fullmatch(rb"[+-]?[0-9]+", token) for token in tokens):
        return Outcome.PIXEL_TOKEN
    values = [int(token) for token in tokens]
    if any(not 0 <= number <= 255 for number in values):
        return Outcome.PIXEL_RANGE
    return values if len(values) == count else Outcome.PIXEL_COUNT


def parse_rows(texts: list[bytes], count: int) -> list[list[int] | Outcome]:
    """Return the pixels or the error of each row."""
    values, errors = parse_pixel_rows(texts, count)
    details = errors.details
    assert values.dtype == np.uint8
    assert values.shape == (len(texts), count)
    assert not values[list(details)].any()
    assert np.flatnonzero(errors.outcomes != Outcome.KEPT).tolist() == sorted(details)
    assert set(details) <= set(range(len(texts)))
    return [
        Outcome(int(errors.outcomes[row])) if row in details else values[row].tolist()
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
separators = st.sampled_from(
    [b" "] * 8 + [b"  ", b"\t", b"\r\n", b"\x0b", b"\x0c", b"\xa0", b"\0", b","]
)
edge = st.sampled_from([b""] * 8 + [b" ", b"\t", b"\r", b"\n", b"\0", b'"'])


@st.composite
def pixel_strings(draw: st.DrawFn, count: int) -> bytes:
    """Return a pixel string, valid or invalid, of about `count` tokens."""
    token_count = draw(st.sampled_from([count] * 4 + [0, 1, count - 1, count + 1]))
    parts = [draw(edge)]
    for index in range(token_count):
        parts += [draw(separators)] if index else []
        parts += [draw(token)]
    return b"".join([*parts, draw(edge)])


@given(st.lists(pixel_strings(4) | st.binary(max_size=12), max_size=6))
@settings(max_examples=400, deadline=None)
def test_rows_are_parsed_as_token_by_token(texts):
    assert parse_rows(texts, 4) == [parse_slowly(text, 4) for text in texts]


@given(st.text("0123456789+- \t", max_size=16).map(str.encode))
@settings(max_examples=400, deadline=None)
def test_exactly_the_numbers_that_int_reads_are_accepted_from_0_to_255(text):
    try:
        numbers = [int(part) for part in text.split()]
    except ValueError:
        numbers = []
    if numbers and all(0 <= number <= 255 for number in numbers):
        assert parse_pixels(text).tolist() == numbers
    else:
        with pytest.raises(PixelError):
            parse_pixels(text)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 31, 32, 33, 64, 65, 100]),
    st.lists(st.tuples(st.integers(0, 99), pixel_strings(9)), max_size=3),
)
@settings(max_examples=80, deadline=None)
def test_invalid_rows_do_not_affect_other_rows(seed, rows, invalid_rows):
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, 9))
    texts = [" ".join(map(str, row)).encode() for row in pixels.tolist()]
    for position, text in invalid_rows:
        texts[position % rows] = text
    assert parse_rows(texts, 9) == [parse_slowly(text, 9) for text in texts]


def test_every_value_is_parsed_beside_every_other():
    numbers = list(range(256))
    texts = [" ".join(map(str, numbers[k:] + numbers[:k])).encode() for k in range(256)]
    assert parse_rows(texts, 256) == [numbers[k:] + numbers[:k] for k in range(256)]


@pytest.mark.parametrize("before", [0, 2, 9, 12, 99, 100, 255])
def test_a_number_takes_no_digit_from_the_one_before(before):
    # One row at a time: the rows around an unusual one take the slow path of the parser.
    for number in range(1000):
        text = b"%d %d" % (before, number)
        assert parse_rows([text], 2) == [parse_slowly(text, 2)]


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
def test_a_string_is_parsed_strictly(text, expected):
    # Alone, and between valid rows.
    assert parse_rows([text], 2) == [expected]
    assert parse_rows([b"7 8", text, b"9 10"], 2) == [[7, 8], expected, [9, 10]]


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
def test_a_short_row_takes_no_pixel_from_a_long_one(texts):
    assert parse_rows(texts, 4) == [parse_slowly(text, 4) for text in texts]


def test_no_rows_give_no_values():
    assert parse_rows([], 4) == []


def test_a_string_of_unknown_length_gives_all_its_pixels():
    pixels = parse_pixels(b"3 2 1")
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [3, 2, 1]


def test_an_error_states_the_actual_and_the_expected_values():
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
def test_a_square_image_has_a_side_of_at_least_eight(count, side):
    assert square_image_size(count) == side


@given(st.integers(0, 10**12))
@example(10**12)
def test_the_square_of_the_side_is_the_number_of_pixels(count):
    side = square_image_size(count)
    root = math.isqrt(count)
    assert side == (root if root**2 == count and root >= 8 else None)


def test_centered_is_exact():
    expected = (np.arange(256, dtype=np.float64) - 128) / 128
    table = Normalization.centered().lookup_table()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table.astype(np.float64), expected)


def test_zero_to_one_is_within_one_unit_in_the_last_place():
    table = Normalization.zero_to_one().lookup_table()
    assert table.dtype == np.float32
    np.testing.assert_array_max_ulp(table, (np.arange(256) / 255).astype(np.float32), maxulp=1)
    assert (table[0], table[255]) == (0, 1)


pixel_sets = st.lists(st.integers(0, 255), min_size=1, max_size=40).map(np.array)


def compute_sums(pixels: np.ndarray) -> tuple[int, int, int]:
    """Return the arguments of `Normalization.standard`: count, sum and sum of squares."""
    values = [int(pixel) for pixel in pixels.ravel()]
    return len(values), sum(values), sum(pixel * pixel for pixel in values)


@given(pixel_sets)
@example(np.array([0] * 39 + [1]))
@example(np.array([254] + [255] * 39))
@settings(deadline=None)
def test_standard_equals_the_standardisation_by_numpy(pixels):
    table = Normalization.standard(*compute_sums(pixels)).lookup_table()
    deviation = pixels.std() if len(set(pixels.tolist())) > 1 else 1.0
    expected = (np.arange(256) - pixels.mean()) / deviation
    np.testing.assert_allclose(table, expected, rtol=0, atol=3e-7 * np.abs(expected).max())


def test_standard_accepts_sums_beyond_the_precision_of_floats():
    # 30 million images of 48x48, of which every 7th pixel is 1 and the others are 0.
    count, ones = 30_000_000 * 2304, 30_000_000 * 2304 // 7
    mean = Fraction(ones, count)
    scale = 1 / math.sqrt(mean - mean**2)
    normalization = Normalization.standard(count, ones, ones)
    assert normalization == Normalization(
        "standard", float(np.float32(scale)), float(np.float32(-float(mean) * scale))
    )


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_standard_of_a_single_value_subtracts_the_mean(level):
    normalization = Normalization.standard(*compute_sums(np.full(2304, level)))
    assert normalization == Normalization("standard", 1.0, float(-level))


@given(pixel_sets)
@settings(deadline=None)
def test_the_numbers_are_float32_and_survive_json_bit_by_bit(pixels):
    for normalization in (*ORDINARY, Normalization.standard(*compute_sums(pixels))):
        restored = Normalization(**json.loads(json.dumps(dataclasses.asdict(normalization))))
        assert restored == normalization
        assert (
            float(np.float32(normalization.scale)),
            float(np.float32(normalization.offset)),
        ) == (
            normalization.scale,
            normalization.offset,
        )
        assert restored.lookup_table().tobytes() == normalization.lookup_table().tobytes()


@given(pixel_sets)
@settings(deadline=None)
def test_all_256_pixel_values_are_restored(pixels):
    all_pixels = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(4, 8, 8)
    for normalization in (*ORDINARY, Normalization.standard(*compute_sums(pixels))):
        assert (np.diff(normalization.lookup_table()) > 0).all()
        restored = normalization.restore_pixels(normalization.lookup_table()[all_pixels])
        assert restored.dtype == np.uint8
        np.testing.assert_array_equal(restored, all_pixels)


@pytest.mark.parametrize("normalization", ORDINARY, ids=lambda normalization: normalization.kind)
@pytest.mark.parametrize("fault", ["above", "below", "between", "nan", "huge", "tiny"])
def test_values_that_are_not_in_the_table_are_refused(normalization, fault):
    table = normalization.lookup_table()
    values = table[[0, 7, 255]].copy()
    values[1] = {
        "above": np.nextafter(table[7], np.float32(np.inf)),
        "below": np.nextafter(table[7], np.float32(-np.inf)),
        "between": (table[7] + table[8]) / 2,
        "nan": np.nan,
        "huge": sys.float_info.max / 1e300,
        "tiny": -1e30,
    }[fault]
    with pytest.raises(ValueError, match="not produced by this normalisation"):
        normalization.restore_pixels(values)
