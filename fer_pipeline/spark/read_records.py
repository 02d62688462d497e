"""Reading and decoding of sources in the Python workers, for preprocessing and scoring alike.

Records are numbered within the block of the file that a task reads; the number in the file follows
when all blocks are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fer_pipeline.data import fer_csv
from fer_pipeline.data.fer_csv import CsvLayout, RequiredColumns
from fer_pipeline.data.image_decoding import parse_image_files
from fer_pipeline.data.record_batch import ParsedRecords
from fer_pipeline.spark.steps import error_context

Batches = Iterable[pa.RecordBatch]

COUNTS_DDL = "source string, block bigint, n bigint"
"""The columns of `count_csv_records`."""


@dataclass(frozen=True)
class SourceRecords:
    """Records with their places, in columns of one length n.

    Attributes:
        sources: File of each record, an Arrow column of strings.
        blocks: Start in the file of the block that each was read in, an Arrow column of int64.
        positions: 0-based number of each record in the block, int32 of shape (n,).
        parsed: The records.
    """

    sources: pa.Array
    blocks: pa.Array
    positions: npt.NDArray[np.int32]
    parsed: ParsedRecords

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.parsed)


RecordGroups = Iterator[Iterable[SourceRecords]]
"""Groups of records that are processed together. Image files are decoded while their group is
iterated over, so that few photos are in memory at once."""

RecordReader = Callable[[Batches], RecordGroups]
"""Reads the records of Spark's batches."""


def source_name(url: str) -> str:
    """Return the name of a source wherever a user reads it: the plain path of a local file."""
    path = unquote(url)
    return "/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path


def read_csv_records(
    batches: Batches, layouts: Mapping[str, CsvLayout], required: RequiredColumns
) -> RecordGroups:
    """Read lines of CSV files.

    Args:
        batches: Columns (line, file URL, start of the block).
        layouts: Layout of each file that several tasks may share, by its URL: only one of them
            sees the header. Other files show theirs.
        required: Columns that a file must have.

    Yields:
        The records that a batch holds of one block.
    """
    block: _CsvBlock | None = None
    for batch in batches:
        for (url, start), lines in _lines_by_block(batch):
            if block is None or (block.url, block.start) != (url, start):
                block = _CsvBlock(url, start, layouts.get(url), required)
            with error_context(f"parsing {block.name}, block at {start}"):
                records = block.parse(lines)
            if records is not None:
                yield [records]


def count_csv_records(batches: Batches) -> Batches:
    """Count the lines of CSV files that are not blank, for `mapInArrow`.

    Args:
        batches: The columns that `read_csv_records` takes.

    Yields:
        Their number, `n`, by `source` and `block`; the first block's includes the header.
    """
    for batch in batches:
        for (url, start), lines in _lines_by_block(batch):
            n = sum(not fer_csv.is_blank(line) for line in lines)
            columns = {"source": [source_name(url)], "block": [start], "n": [n]}
            yield pa.RecordBatch.from_pydict(columns)


def read_image_records(batches: Batches) -> RecordGroups:
    """Read and decode image files; each is one record.

    Args:
        batches: Columns (content, file URL).

    Yields:
        The records of a batch.
    """
    for batch in batches:
        yield _decode_images(batch)


def _decode_images(batch: pa.RecordBatch) -> Iterator[SourceRecords]:
    contents, urls = batch.columns
    paths = [source_name(url) for url in urls.to_pylist()]
    files = ((content.as_py(), path) for content, path in zip(contents, paths, strict=True))
    start = 0
    with error_context(f"decoding image files from {paths[0]} on"):
        for parsed in parse_image_files(files):
            sources = pa.array(paths[start : start + len(parsed)], pa.string())
            start += len(parsed)
            yield SourceRecords(
                sources=sources,
                blocks=pa.array(np.zeros(len(parsed), np.int64)),
                positions=np.zeros(len(parsed), np.int32),
                parsed=parsed,
            )


class _CsvBlock:
    """One block of a CSV file, as its lines come in."""

    def __init__(
        self, url: str, start: int, layout: CsvLayout | None, required: RequiredColumns
    ) -> None:
        self.url = url
        self.start = start
        self.name = source_name(url)
        self._layout = layout
        self._required = required
        self._record_count = 0
        self._header_due = start == 0

    def parse(self, lines: Iterable[bytes]) -> SourceRecords | None:
        """Parse the block's next lines; return None if none of them is a record."""
        rows = [line for line in lines if not fer_csv.is_blank(line)]
        if self._header_due and rows:
            header = rows.pop(0)
            self._header_due = False
            self._layout = self._layout or fer_csv.read_header(header, self.name, self._required)
        if not rows:
            return None
        if self._layout is None:
            raise RuntimeError(f"{self.name}: no header for the block at {self.start}")
        if self._layout.pixel_count is None:
            self._layout = fer_csv.infer_pixel_count(self._layout, rows)
        first = self._record_count
        self._record_count += len(rows)
        names = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [self.name])
        return SourceRecords(
            sources=names.cast(pa.string()),
            blocks=pa.array(np.full(len(rows), self.start, np.int64)),
            positions=np.arange(first, self._record_count, dtype=np.int32),
            parsed=fer_csv.parse_rows(rows, self._layout),
        )


def _lines_by_block(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    lines, urls, starts = (column.to_pylist() for column in batch.columns)
    for block, rows in groupby(range(len(lines)), lambda row: (urls[row], starts[row])):
        yield block, [lines[row] for row in rows]
