import pytest

from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.record_batch import EXCERPT_LENGTH, RecordErrors, make_excerpt


def test_a_label_error_replaces_the_error_of_a_record_that_was_read():
    errors, label_errors = RecordErrors(5), RecordErrors(5)
    errors.set_error(0, Outcome.PIXEL_COUNT, "3 pixels")
    errors.set_error(1, Outcome.PIXEL_COUNT, "3 pixels")
    errors.set_error(2, Outcome.BROKEN_LINE, "1 fields")
    errors.set_error(4, Outcome.UNREADABLE_FILE, "Permission denied")
    for row in (1, 2, 3, 4):
        label_errors.set_error(row, Outcome.EMPTY_FIELD, "no emotion")

    errors.update(label_errors)

    assert errors.outcomes.tolist() == [
        Outcome.PIXEL_COUNT,
        Outcome.EMPTY_FIELD,
        Outcome.BROKEN_LINE,
        Outcome.EMPTY_FIELD,
        Outcome.UNREADABLE_FILE,
    ]
    assert errors.details == {
        0: "3 pixels",
        1: "no emotion",
        2: "1 fields",
        3: "no emotion",
        4: "Permission denied",
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", ""),
        (b"0,1 2 3,Training", "0,1 2 3,Training"),
        (b"0\t1\r\n\0\x1b[31m", "0?1????[31m"),
        ("gr\u00fc\u00dfe".encode(), "gr\u00fc\u00dfe"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"x" * EXCERPT_LENGTH, "x" * EXCERPT_LENGTH),
        (
            b"0," + b"12 " * 2304 + b",PrivateTest",
            "0," + "12 " * 17 + "12 ... 2 12 12 ,PrivateTest",
        ),
    ],
)
def test_an_excerpt_is_short_and_printable(line, expected):
    assert make_excerpt(line) == expected
    assert len(make_excerpt(line)) <= EXCERPT_LENGTH
