import csv
import io
import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.fer_csv import (
    CsvLayout,
    RequiredColumns,
    add_pixel_count,
    is_blank,
    parse_header,
    parse_rows,
    split_fields,
)
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.errors import InputError

BOM = b"\xef\xbb\xbf"
ORDINARY = CsvLayout(3, pixels=1, emotion=0, usage=2)
ORDINARY_64 = CsvLayout(3, pixels=1, emotion=0, usage=2, pixel_count=64)


def read_header(line: bytes, *, labelled: bool = True, usage: bool = True) -> CsvLayout:
    return parse_header(line, "faces.csv", RequiredColumns(emotion=labelled, usage=usage))


def make_image(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def format_pixels(array: np.ndarray) -> bytes:
    return " ".join(map(str, array.ravel().tolist())).encode()


Error = tuple[Outcome, str]


class Record(NamedTuple):
    """A record of a batch, with its image as lists."""

    emotion: str | None
    usage: str | None
    text: bytes
    image: list[list[int]] | None
    error: Error | None


def parse_to_records(lines: list[bytes], layout: CsvLayout = ORDINARY_64) -> list[Record]:
    """Parse lines and return the records row by row."""
    parsed = parse_rows(lines, layout)
    assert len(parsed) == len(lines)
    assert len(parsed.emotions) == len(parsed.usages) == len(parsed.texts) == len(lines)
    assert isinstance(parsed.images, np.ndarray)
    assert parsed.images.dtype == np.uint8
    assert parsed.images.ndim == 3
    assert len(parsed.images) == len(lines)
    assert parsed.errors.outcomes.dtype == np.int8
    outcomes = [Outcome(code) for code in parsed.errors.outcomes.tolist()]
    details = parsed.errors.details
    assert [row for row, outcome in enumerate(outcomes) if outcome != Outcome.KEPT] == sorted(
        details
    )
    assert all(outcomes[row].is_quarantined for row in details)
    errors = [
        (outcomes[row], details[row]) if row in details else None for row in range(len(lines))
    ]
    images = [
        None if error else pixels.tolist()
        for pixels, error in zip(parsed.images, errors, strict=True)
    ]
    columns = (parsed.emotions, parsed.usages, parsed.texts, images, errors)
    return [Record(*row) for row in zip(*columns, strict=True)]


def parse_to_sound_record(line: bytes, layout: CsvLayout) -> tuple[str, str, list[list[int]]]:
    """Parse a line without errors; return its emotion, usage and image."""
    (record,) = parse_to_records([line], layout)
    assert record.error is None
    assert record.emotion is not None
    assert record.usage is not None
    assert record.image is not None
    return record.emotion, record.usage, record.image


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"emotion,pixels,Usage", CsvLayout(3, 1, 0, 2)),
        (b"emotion, pixels, Usage", CsvLayout(3, 1, 0, 2)),
        (b"emotion,Usage,pixels", CsvLayout(3, 2, 0, 1)),
        (b"pixels,EMOTION,usage", CsvLayout(3, 0, 1, 2)),
        (b" Pixels ,\tEmotion,uSAGE\r", CsvLayout(3, 0, 1, 2)),
        (b"emotion,pixels,Usage\r\n", CsvLayout(3, 1, 0, 2)),
        (BOM + b"emotion,pixels,Usage\r", CsvLayout(3, 1, 0, 2)),
        (BOM + b'"emotion","pixels","Usage"\r', CsvLayout(3, 1, 0, 2)),
        (b'"emotion", "pixels", "Usage"', CsvLayout(3, 1, 0, 2)),
        (b'emotion,"pixels",Usage', CsvLayout(3, 1, 0, 2)),
        (b"id,emotion,name,pixels,Usage,", CsvLayout(6, 3, 1, 4)),
        (b'"a,b",emotion,pixels,Usage', CsvLayout(4, 2, 1, 3)),
        (b"\xff\xfe\xe9,emotion,pixels,usage", CsvLayout(4, 2, 1, 3)),
    ],
)
def test_a_header_may_have_any_order_case_and_quotes(line, expected):
    assert read_header(line) == expected


def test_a_column_that_is_not_required_may_be_missing():
    assert read_header(b"pixels,emotion", usage=False) == CsvLayout(2, 0, 1, None)
    assert read_header(b"pixels,usage", labelled=False) == CsvLayout(2, 0, None, 1)
    assert read_header(b"pixels", labelled=False, usage=False) == CsvLayout(1, 0, None, None)
    assert read_header(b"emotion,pixels,Usage", labelled=False, usage=False) == CsvLayout(
        3, 1, 0, 2
    )


HINT = "; the first line has to name the columns, such as emotion,pixels,Usage"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b"emotion,Usage",
            f"faces.csv: no column pixels in its first line (got: emotion, usage){HINT}",
        ),
        (
            b"label,pixels",
            "faces.csv: no column emotion, usage in its first line (got: label, pixels)",
        ),
        (
            b"pixels,Usage",
            "faces.csv: no column emotion in its first line (got: pixels, usage)",
        ),
        (
            b"emotion,pixels",
            "faces.csv: no column usage in its first line (got: emotion, pixels);"
            " split.method=stratified needs none",
        ),
        (
            b"emotion,pixels,Usage,Pixels",
            "faces.csv: the header contains pixels twice: emotion, pixels, usage, pixels",
        ),
        (
            b"emotion, EMOTION,pixels,Usage",
            "faces.csv: the header contains emotion twice: emotion, emotion, pixels, usage",
        ),
        (b"", f"faces.csv: no column emotion, pixels, usage in its first line (got: ){HINT}"),
        (
            b'"emotion,pixels,Usage',
            f"faces.csv: no column emotion, pixels, usage in its first line (got: ){HINT}",
        ),
        # A file without a header: its first row is shown, in part.
        (
            b"0," + b"70 80 " * 1000 + b",Training",
            "faces.csv: no column emotion, pixels, usage in its first line"
            f" (got: 0, 70 80 70 80 70 80 70, training){HINT}",
        ),
    ],
)
def test_a_header_that_lacks_or_repeats_a_column_is_refused(line, message):
    with pytest.raises(InputError) as raised:
        read_header(line)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"a,b,c", [b"a", b"b", b"c"]),
        (b"", [b""]),
        (b",", [b"", b""]),
        (b'"a","b,c",d', [b"a", b"b,c", b"d"]),
        (b'"a ""b""",c', [b'a "b"', b"c"]),
        (b'a, "b"', [b"a", b"b"]),
        (b'""', [b""]),
        (b'"a"\r', [b"a"]),
        (b'"a",b\r', [b"a", b"b"]),
        (b'a"b,c', [b'a"b', b"c"]),
        (b'"\xe9\x00\xff",c', [b"\xe9\x00\xff", b"c"]),
        (b'"a', None),
        (b'a,"b,c', None),
        (b'"a"b,c', None),
    ],
)
def test_a_line_is_split_at_commas_outside_quotes(line, fields):
    assert split_fields(line) == fields


def test_a_field_may_contain_the_largest_image():
    text = b"255 " * 512 * 512
    assert split_fields(b'0,"' + text + b'",Training') == [b"0", text, b"Training"]


@pytest.mark.parametrize("line", [b"", b"\r", b" \t", BOM, BOM + b"\r\n"])
def test_blank_lines_are_blank(line):
    assert is_blank(line)


@pytest.mark.parametrize("line", [b"0", b",", b'""', BOM + b"a", b" x "])
def test_other_lines_are_not_blank(line):
    assert not is_blank(line)


def format_row(seed: int, side: int = 8, usage: bytes = b"Training") -> bytes:
    return b"%d,%s,%s" % (seed % 7, format_pixels(make_image(seed, side)), usage)


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([format_row(0, 8), format_row(1, 8)], 64),
        ([format_row(0, 48)], 2304),
        ([format_row(0, 100)], 10_000),
        # Images that are too small, not square or broken do not define a size.
        (
            [
                format_row(0, 7),
                b"0,1 2 3,Training",
                b'0,"1 2,Training',
                format_row(0, 9)[2:],
                format_row(0, 28),
            ],
            784,
        ),
        ([b"0,,Training", format_row(0, 48)], 2304),
        ([b'"0","%s","Training"\r' % format_pixels(make_image(0))], 64),
        ([b"0,1 2 3,Training", b""], None),
        ([], None),
    ],
)
def test_the_first_square_image_defines_the_size(lines, count):
    layout = add_pixel_count(ORDINARY, lines)
    assert layout == CsvLayout(3, 1, 0, 2, count)


def test_valid_rows_give_their_texts_and_images():
    lines = [format_row(number) for number in range(70)]
    assert parse_to_records(lines) == [
        (str(number % 7), "Training", line, make_image(number).tolist(), None)
        for number, line in enumerate(lines)
    ]


@pytest.mark.parametrize("side", [8, 28, 48, 64])
def test_images_of_any_square_size_are_read(side):
    layout = add_pixel_count(ORDINARY, [format_row(3, side)])
    _, _, pixels = parse_to_sound_record(format_row(3, side), layout)
    np.testing.assert_array_equal(pixels, make_image(3, side))


def test_each_invalid_row_has_an_error_and_its_neighbours_are_read():
    good = format_row(5)
    first_pixel, other_pixels = format_pixels(make_image(5)).split(b" ", 1)
    error_by_line: dict[bytes, Error | Outcome] = {
        b"0,1 2 3,Training": (Outcome.PIXEL_COUNT, "3 pixels, expected 64"),
        b"0," + b"1 " * 65 + b",Training": (Outcome.PIXEL_COUNT, "65 pixels, expected 64"),
        b"0," + b"1 " * 63 + b"256,Training": (Outcome.PIXEL_RANGE, "values from 1 to 256"),
        b"0,-1 " + other_pixels + b",Training": Outcome.PIXEL_RANGE,
        b"0,1.5 " + other_pixels + b",Training": (
            Outcome.PIXEL_TOKEN,
            "a pixel is not a whole number",
        ),
        b"0,,Training": (Outcome.EMPTY_FIELD, "no pixels"),
        b"0,  ,Training": (Outcome.EMPTY_FIELD, "no pixels"),
        b"0," + first_pixel: (Outcome.BROKEN_LINE, "2 fields, expected 3 fields"),
        good + b",": (Outcome.BROKEN_LINE, "4 fields, expected 3 fields"),
        b"garbage": (Outcome.BROKEN_LINE, "1 fields, expected 3 fields"),
        b'0,"' + other_pixels: (
            Outcome.BROKEN_LINE,
            "a quote that does not close, expected 3 fields",
        ),
    }
    lines = list(itertools.chain.from_iterable((line, good) for line in error_by_line))
    records = parse_to_records(lines)
    good_record = ("5", "Training", good, make_image(5).tolist(), None)
    assert records[1::2] == [good_record] * len(error_by_line)
    for record, (line, expected) in zip(records[::2], error_by_line.items(), strict=True):
        assert (record.text, record.image) == (line, None)
        assert record.error is not None
        assert expected in (record.error, record.error[0])


def test_a_row_with_an_invalid_image_keeps_its_label_and_usage():
    (record,) = parse_to_records([b" 3 ,1 2 3,PublicTest\r"], ORDINARY_64)
    assert (record.emotion, record.usage) == (" 3 ", "PublicTest\r")


def test_no_lines_are_no_records():
    assert parse_to_records([], ORDINARY_64) == []
    assert parse_to_records([], ORDINARY) == []


def test_broken_lines_alone_give_only_errors():
    errors = [record.error for record in parse_to_records([b"a", b"b"], ORDINARY_64)]
    assert [error and error[0] for error in errors] == [
        Outcome.BROKEN_LINE,
        Outcome.BROKEN_LINE,
    ]


def test_without_a_known_size_each_row_has_its_own_error():
    lines = [b"0,1 2 3,Training", b"0,,Training", b"0,1 x,Training", b"0,256,Training", b"0"]
    assert add_pixel_count(ORDINARY, lines) == ORDINARY
    assert [record.error for record in parse_to_records(lines, ORDINARY)] == [
        (Outcome.PIXEL_COUNT, "3 pixels, not a square image"),
        (Outcome.EMPTY_FIELD, "no pixels"),
        (Outcome.PIXEL_TOKEN, "a pixel is not a whole number"),
        (Outcome.PIXEL_RANGE, "values from 256 to 256"),
        (Outcome.BROKEN_LINE, "1 fields, expected 3 fields"),
    ]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_windows_line_ends_are_not_part_of_a_field(position):
    names = [b"emotion", b"Usage"]
    names.insert(position, b"pixels")
    fields = {b"emotion": b"3", b"Usage": b"Training", b"pixels": format_pixels(make_image(1))}
    for quote in (b"", b'"'):
        line = b",".join(quote + fields[name] + quote for name in names) + b"\r"
        layout = add_pixel_count(read_header(b",".join(names) + b"\r"), [line])
        emotion, usage, pixels = parse_to_sound_record(line, layout)
        assert (emotion.strip(), usage.strip()) == ("3", "Training")
        np.testing.assert_array_equal(pixels, make_image(1))


def test_missing_columns_give_none():
    layout = read_header(b"pixels", labelled=False, usage=False)
    lines = [format_pixels(make_image(1))]
    (record,) = parse_to_records(lines, add_pixel_count(layout, lines))
    assert (record.emotion, record.usage) == (None, None)
    assert record.image is not None
    np.testing.assert_array_equal(record.image, make_image(1))


def test_texts_in_another_encoding_are_read_with_replacement_characters():
    line = b"\xe9," + format_pixels(make_image(1)) + b",\xff"
    emotion, usage, pixels = parse_to_sound_record(line, ORDINARY_64)
    assert (emotion, usage) == ("\N{REPLACEMENT CHARACTER}",) * 2
    np.testing.assert_array_equal(pixels, make_image(1))


text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), max_size=8)


@given(
    st.permutations(["emotion", "pixels", "usage", "extra, one", "other"]),
    st.lists(st.tuples(text, text, text), min_size=1, max_size=5),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\r\n", "\n"]),
    st.booleans(),
)
@settings(deadline=None)
def test_rows_of_a_csv_writer_are_read_back(names, texts, quoting, end, bom):
    rows = [
        {
            "emotion": emotion,
            "usage": usage,
            "other": unused,
            "extra, one": "",
            "pixels": format_pixels(make_image(number)).decode(),
        }
        for number, (emotion, usage, unused) in enumerate(texts)
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, quoting=quoting, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    first, *lines = (BOM * bom + file.getvalue().encode()).removesuffix(b"\n").split(b"\n")
    layout = add_pixel_count(read_header(first), lines)
    assert len(lines) == len(texts)
    for number, (line, expected) in enumerate(zip(lines, texts, strict=True)):
        emotion, usage, pixels = parse_to_sound_record(line, layout)
        assert (emotion.removesuffix("\r"), usage.removesuffix("\r")) == expected[:2]
        np.testing.assert_array_equal(pixels, make_image(number))


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=5))
@settings(deadline=None)
def test_every_line_gives_one_record_with_an_image_or_an_error(lines):
    for layout in (ORDINARY_64, ORDINARY):
        records = parse_to_records(lines, layout)
        assert [record.text for record in records] == lines
        assert all((record.image is None) == (record.error is not None) for record in records)
