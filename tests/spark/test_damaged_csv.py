"""CSV files that are damaged, or that are something else, as the Python workers read them."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.errors import InputError
from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.spark.read_records import count_csv_records, read_csv_records
from tests.helpers.fer_csv import format_row, make_image

HEADER = "emotion,pixels,Usage"
ROWS = [format_row(n % 7, make_image(n)) for n in range(20)]
TEXT = "".join(f"{line}\n" for line in (HEADER, *ROWS)).encode()
GZIP = gzip.compress(TEXT, mtime=0)


def read(path: Path) -> list[tuple[str, str | None]]:
    """Return the outcome of each record, and the description of its error.

    It asserts that counting the records gives their number.
    """
    part = FilePart(str(path), path.stat().st_size)
    records = [
        (Outcome(code).name, group.parsed.errors.details.get(row))
        for groups in read_csv_records([part], {}, RequiredColumns(emotion=True, usage=False))
        for group in groups
        for row, code in enumerate(group.parsed.errors.outcomes.tolist())
    ]
    assert list(count_csv_records([part])) == [(str(path), 0, len(records))]
    return records


@pytest.mark.parametrize(
    ("name", "content", "kept_counts"),
    [
        ("truncated.csv.gz", GZIP[: len(GZIP) // 2], range(5, 15)),
        ("no checksum.csv.gz", GZIP[:-8], [20]),
        ("wrong checksum.csv.gz", GZIP[:-8] + bytes(4) + GZIP[-4:], [20]),
        ("garbage follows.csv.gz", GZIP + b"garbage", [20]),
        ("half a header.csv.gz", GZIP[:5], [0]),
        ("no gzip.csv.gz", TEXT, [0]),
        ("truncated.csv.bz2", bz2.compress(TEXT)[:-20], [0]),
        ("no bytes.csv.bz2", b"", [0]),
        ("no bzip2.csv.bz2", GZIP, [0]),
    ],
)
def test_what_cannot_be_decompressed_is_one_record(tmp_path, name, content, kept_counts) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    *readable, (outcome, detail) = read(path)

    assert len(readable) in kept_counts
    assert readable == [("KEPT", None)] * len(readable)
    assert outcome == "UNREADABLE_FILE"
    assert detail is not None
    assert detail.startswith("cannot be read: ")
    assert detail.endswith("; the rest is not read") == bool(readable)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GZIP, "is a gzip file; rename it to .gz"),
        (bz2.compress(TEXT), "is a bzip2 file; rename it to .bz2"),
        (lzma.compress(TEXT), "is a file of xz; decompress it"),
        (TEXT.decode().encode("utf-16"), "is a text in UTF-16; save it in UTF-8"),
        (b"\xfe\xff" + TEXT.decode().encode("utf-16-be"), "save it in UTF-8"),
        (TEXT.decode().encode("utf-16-le"), "no column emotion, pixels in its first line"),
        (TEXT.replace(b",", b";"), "no column emotion, pixels in its first line"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no column emotion, pixels in its first line"),
        (bytes(1 << 20), "no column emotion, pixels in its first line"),
    ],
)
def test_the_error_for_a_file_that_is_no_csv_says_what_it_is(tmp_path, content, message) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace(b"\n", b"\r"),
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\r\r\n"),
        TEXT[:-1],
        b"\n\n" + TEXT,
        TEXT.replace(b"Training", b"Tr\0in\xff"),
    ],
)
def test_line_ends_and_other_columns_do_not_matter(tmp_path, content) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert read(path) == [("KEPT", None)] * 20


@pytest.mark.parametrize("content", [b"", b"\n\n", HEADER.encode(), f"{HEADER}\n\n\n".encode()])
def test_a_file_without_rows_has_no_records(tmp_path, content) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert read(path) == []
