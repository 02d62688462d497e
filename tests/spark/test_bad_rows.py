"""Rows that cannot be read as labelled images."""

from __future__ import annotations

import pytest

from fer_pipeline.data.outcomes import QuarantineReason
from fer_pipeline.errors import TooManyBadRowsError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import build_expected_row

# Bad rows: the text in the file, and the reason and the detail in the quarantine.
PIXELS = " ".join(["7"] * 64)
BAD = {
    "too few pixels": ("0,1 2 3,Training", QuarantineReason.PIXEL_COUNT, "3 pixels, expected 64"),
    "too many pixels": (
        f"0,{PIXELS} 1,Training",
        QuarantineReason.PIXEL_COUNT,
        "65 pixels, expected 64",
    ),
    "256": (f"0,256 {PIXELS[2:]},Training", QuarantineReason.PIXEL_RANGE, "values from 7 to 256"),
    "300": (f"0,300 {PIXELS[2:]},Training", QuarantineReason.PIXEL_RANGE, "values from 7 to 300"),
    "999": (f"0,{PIXELS[2:]} 999,Training", QuarantineReason.PIXEL_RANGE, "values from 7 to 999"),
    "1000": (
        f"0,{PIXELS[2:]} 1000,Training",
        QuarantineReason.PIXEL_RANGE,
        "values from 7 to 1000",
    ),
    "below zero": (
        f"0,-1 {PIXELS[2:]},Training",
        QuarantineReason.PIXEL_RANGE,
        "values from -1 to 7",
    ),
    "a word": (
        f"0,grey {PIXELS[2:]},Training",
        QuarantineReason.PIXEL_TOKEN,
        "a pixel is not a whole number",
    ),
    "a fraction": (
        f"0,1.5 {PIXELS[2:]},Training",
        QuarantineReason.PIXEL_TOKEN,
        "a pixel is not a whole number",
    ),
    "another code": (f"7,{PIXELS},Training", QuarantineReason.EMOTION, "emotion '7'"),
    "another name": (f"bored,{PIXELS},Training", QuarantineReason.EMOTION, "emotion 'bored'"),
    "another usage": (f"0,{PIXELS},Holdout", QuarantineReason.USAGE, "usage 'Holdout'"),
    "no emotion": (f",{PIXELS},Training", QuarantineReason.EMPTY, "no emotion"),
    "no pixels": ("0, ,Training", QuarantineReason.EMPTY, "no pixels"),
    "no usage": (f"0,{PIXELS},", QuarantineReason.EMPTY, "no usage"),
    "too few fields": ("0", QuarantineReason.BROKEN, "1 fields, expected 3 fields"),
    "too many fields": (
        f"0,{PIXELS},Training,9",
        QuarantineReason.BROKEN,
        "4 fields, expected 3 fields",
    ),
    "an open quote": (
        f'0,"{PIXELS},Training',
        QuarantineReason.BROKEN,
        "a quote that does not close, expected 3 fields",
    ),
    "no text at all": ("\x00\x07ü", QuarantineReason.BROKEN, "1 fields, expected 3 fields"),
}


@pytest.fixture(scope="module")
def bad_rows_dataset(tmp_path_factory, prepare):
    """A CSV with a valid row before and after each bad one and blank lines, and its dataset."""
    path = tmp_path_factory.mktemp("bad rows") / "bad.csv"
    lines = ["emotion,pixels,Usage", format_row(3, make_image(0))]
    for number, (text, _, _) in enumerate(BAD.values(), 1):
        lines += ["", text, format_row(3, make_image(number))]
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return path, prepare(path, input={"max_quarantined_fraction": len(BAD) / (2 * len(BAD) + 1)})


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_goes_to_the_quarantine(bad_rows_dataset, name) -> None:
    path, dataset = bad_rows_dataset
    record = 1 + 2 * list(BAD).index(name)
    text, reason, detail = BAD[name]
    excerpt = text if len(text) <= 80 else f"{text[:55]} ... {text[-20:]}"

    assert [row for row in dataset.quarantine if row["record"] == record] == [
        {
            "source": str(path),
            "record": record,
            "reason": str(reason),
            "detail": detail,
            "excerpt": "".join(c if c.isprintable() else "?" for c in excerpt),
        }
    ]


def test_bad_rows_are_counted_and_valid_rows_are_kept(bad_rows_dataset) -> None:
    path, dataset = bad_rows_dataset
    reasons = [reason for _, reason, _ in BAD.values()]

    assert dataset.rows == [
        build_expected_row(path, 2 * number, 3, make_image(number))
        for number in range(len(BAD) + 1)
    ]
    assert dataset.manifest.rows.read == 2 * len(BAD) + 1
    assert dataset.manifest.rows.quarantined == {r: reasons.count(r) for r in QuarantineReason}
    assert [(s.path, s.records, s.quarantined) for s in dataset.manifest.sources] == [
        (str(path), 2 * len(BAD) + 1, len(BAD))
    ]


def test_the_largest_allowed_fraction_of_bad_rows_is_accepted(prepare, tmp_path) -> None:
    rows = [format_row(row % 7, make_image(row)) for row in range(98)]
    file = write_csv(tmp_path / "a.csv", ["9,1 2,Training", *rows, "broken"])

    assert len(prepare(file, input={"max_quarantined_fraction": 0.02}).quarantine) == 2


def test_too_many_bad_rows_leave_no_output(prepare, tmp_path) -> None:
    rows = [format_row(row % 7, make_image(row)) for row in range(97)]
    file = write_csv(tmp_path / "a.csv", ["9,1 2,Training", *rows, "broken", "fields"])

    with pytest.raises(TooManyBadRowsError) as caught:
        prepare(file, to=tmp_path / "out", input={"max_quarantined_fraction": 0.02})

    message = str(caught.value)
    assert message.startswith("3 of 100 records")
    assert "input.max_quarantined_fraction 0.02" in message
    assert "(broken line: 2, unknown emotion: 1)" in message
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*"))
