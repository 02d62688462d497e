"""Lines of parts of a text file."""

from __future__ import annotations

import gzip
import io
from itertools import chain, pairwise
from typing import BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.data import text_lines
from fer_pipeline.data.text_lines import iterate_lines

TEXTS = st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n"])).map(b"".join)
CHUNK_SIZES = st.integers(1, 6)


def read_lines(text: bytes, **part: int) -> list[bytes]:
    """Return the lines of a part of a text."""
    return [line for lines in iterate_lines(io.BytesIO(text), **part) for line in lines]


@given(TEXTS, CHUNK_SIZES)
def test_a_whole_file_has_all_lines(text, chunk_bytes) -> None:
    assert read_lines(text, chunk_bytes=chunk_bytes) == text.splitlines()


@given(TEXTS, CHUNK_SIZES, st.lists(st.integers(0, 40)))
def test_each_line_belongs_to_one_part(text, chunk_bytes, cuts) -> None:
    ends = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    parts = [read_lines(text, start=a, end=b, chunk_bytes=chunk_bytes) for a, b in pairwise(ends)]
    assert [line for part in parts for line in part] == text.splitlines()


@pytest.mark.parametrize("chunk_bytes", [1, 64, 1 << 20])
def test_the_lines_before_the_damage_of_a_compressed_file_are_read(chunk_bytes) -> None:
    numbers = [b"%d" % n for n in np.random.default_rng(0).integers(0, 1 << 62, 20_000)]
    content = gzip.compress(b"\n".join(numbers))
    file = cast(BinaryIO, gzip.GzipFile(fileobj=io.BytesIO(content[: len(content) // 2])))
    lines: list[bytes] = []
    with pytest.raises(EOFError):
        lines.extend(chain.from_iterable(iterate_lines(file, chunk_bytes=chunk_bytes)))
    assert lines == numbers[: len(lines)]
    # Half of the content is half of the lines. Deflate delays a part of its last block.
    assert 9_000 < len(lines) < 11_000


def test_the_last_part_may_be_without_an_end() -> None:
    assert read_lines(b"a\nb\nc", start=1) == [b"b", b"c"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_of_a_very_long_line_the_start_is_read(monkeypatch, end, chunk_bytes) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(text_lines, "_KEPT_OF_LONG_LINE", 10)
    text = end.join([b"first", b"x" * 300, b"y" * 90, b"z" * 500])
    lines = read_lines(text, chunk_bytes=chunk_bytes)
    assert [line[:3] for line in lines] == [b"fir", b"xxx", b"yyy", b"zzz"]
    assert len(lines[2]) == 90
    # A chunk of the whole text contains whole lines of any length.
    assert chunk_bytes == 1000 or [len(lines[1]), len(lines[3])] == [10, 10]
