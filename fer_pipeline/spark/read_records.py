"""Parsing and decoding of input files in Spark's Python workers, for preprocessing and scoring.

Spark divides a large file into blocks, and each task reads one block. Records are numbered within
their block here; their numbers in the file are computed after the records of all blocks have been
counted, see `data.block_offsets`.
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

Batches = Iterator[pa.RecordBatch]
"""Arrow batches that a function for `mapInArrow` gets and yields."""

COUNTS_DDL = "source string, block bigint, n bigint"
"""The columns of the counts that `count_csv_lines` yields."""


@dataclass(frozen=True)
class SourceRecords:
    """n records with their locations in the input files, in columns.

    A block is the part of a file that one Spark task reads. An image file is a single block.

    Attributes:
        sources: Name of each record's file, an Arrow column of strings.
        blocks: Start of each record's block in the file, in bytes, an Arrow column of int64.
        positions: 0-based position of each record within its block, int32 of shape (n,).
        parsed: Content of the records: texts of labels, images and errors.
    """

    sources: pa.Array
    blocks: pa.Array
    positions: npt.NDArray[np.int32]
    parsed: ParsedRecords

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.parsed)


RecordGroups = Iterator[Iterable[SourceRecords]]
"""Groups of records that are processed together. Image files are decoded during the iteration over
their group, so that only a few images are in memory at the same time."""

RecordReader = Callable[[Batches], RecordGroups]
"""A function that converts Arrow batches from Spark to records."""


def get_source_name(url: str) -> str:
    """Return the file name to show to users: the path of a local file; otherwise the URL."""
    path = unquote(url)
    return "/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path


def read_csv_records(
    batches: Batches, layouts: Mapping[str, CsvLayout], required: RequiredColumns
) -> RecordGroups:
    """Parse CSV lines to records; Spark has already read the lines from the files.

    Args:
        batches: Arrow batches with the columns line (binary), URL of the file, and start of the
            block in bytes. A block is the part of a file that one Spark task reads.
        layouts: Layout (columns and number of pixels) of files, by URL. It must contain each file
            that several tasks may read, because only one of them sees the header. The layout of a
            file without entry is read from its header.
        required: Columns that a file must have.

    Yields:
        A list with a single `SourceRecords` for each block in each batch.

    Raises:
        InputError: The header of a file lacks a required column.
    """
    block: _CsvBlockParser | None = None
    for batch in batches:
        for (url, start), lines in _group_lines_by_block(batch):
            if block is None or (block.url, block.start) != (url, start):
                block = _CsvBlockParser(url, start, layouts.get(url), required)
            with error_context(f"parsing {block.name}, block at {start}"):
                records = block.parse_next_lines(lines)
            if records is not None:
                yield [records]


def count_csv_lines(batches: Batches) -> Batches:
    """Count the non-blank lines of CSV files, for `mapInArrow`.

    Args:
        batches: Arrow batches with the columns line (binary), URL of the file, and start of the
            block in bytes. A block is the part of a file that one Spark task reads.

    Yields:
        Batches of one row with the columns `source` (name of the file), `block` (start of the
        block) and `n` (number of non-blank lines, including the header of the file). If the lines
        of a block arrive in several batches, the block has several rows.
    """
    for batch in batches:
        for (url, start), lines in _group_lines_by_block(batch):
            line_count = sum(not fer_csv.is_blank(line) for line in lines)
            columns = {"source": [get_source_name(url)], "block": [start], "n": [line_count]}
            yield pa.RecordBatch.from_pydict(columns)


def read_image_records(batches: Batches) -> RecordGroups:
    """Decode image files; each file is one record.

    Args:
        batches: Arrow batches with the columns content (binary) and URL of the file.

    Yields:
        An iterator of `SourceRecords` for each batch. Each step of the iteration decodes a few
        files, so that only a few images are in memory at the same time.
    """
    for batch in batches:
        yield _decode_images(batch)


def _decode_images(batch: pa.RecordBatch) -> Iterator[SourceRecords]:
    """Decode the image files of a batch, a few files at a time.

    Args:
        batch: Arrow batch with the columns content (binary) and URL of the file.

    Yields:
        The records of these few files, one record for each file.
    """
    contents, urls = batch.columns
    paths = [get_source_name(url) for url in urls.to_pylist()]
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


class _CsvBlockParser:
    """Parser of one block of a CSV file, which arrives in several batches of lines."""

    def __init__(
        self, url: str, start: int, layout: CsvLayout | None, required: RequiredColumns
    ) -> None:
        """Create a parser for the lines of a block.

        Args:
            url: URL of the file.
            start: Start of the block in the file, in bytes; a block at 0 begins with the header.
            layout: Layout of the file (columns and number of pixels); None to read it from the
                header and the first rows.
            required: Columns that the file must have.
        """
        self.url = url
        self.start = start
        self.name = get_source_name(url)
        self._layout = layout
        self._required = required
        self._record_count = 0
        self._is_header_expected = start == 0

    def parse_next_lines(self, lines: Iterable[bytes]) -> SourceRecords | None:
        """Parse the next lines of the block to records, numbered from the start of the block.

        Args:
            lines: Next lines. Blank lines and the header of the file are not records.

        Returns:
            The records; None if there are none among the lines.

        Raises:
            InputError: The header lacks a required column.
        """
        rows = [line for line in lines if not fer_csv.is_blank(line)]
        if self._is_header_expected and rows:
            header = rows.pop(0)
            self._is_header_expected = False
            self._layout = self._layout or fer_csv.parse_header(header, self.name, self._required)
        if not rows:
            return None
        if self._layout is None:
            raise RuntimeError(f"{self.name}: no header for the block at {self.start}")
        if self._layout.pixel_count is None:
            self._layout = fer_csv.add_pixel_count(self._layout, rows)
        first_position = self._record_count
        self._record_count += len(rows)
        names = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [self.name])
        return SourceRecords(
            sources=names.cast(pa.string()),
            blocks=pa.array(np.full(len(rows), self.start, np.int64)),
            positions=np.arange(first_position, self._record_count, dtype=np.int32),
            parsed=fer_csv.parse_rows(rows, self._layout),
        )


def _group_lines_by_block(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """Group the consecutive lines of a batch that come from the same block of a file.

    Args:
        batch: Arrow batch with the columns line (binary), URL of the file, and start of the block
            in bytes.

    Yields:
        For each group, the pair of URL and start of the block, and the lines.
    """
    lines, urls, starts = (column.to_pylist() for column in batch.columns)
    for block, rows in groupby(range(len(lines)), lambda row: (urls[row], starts[row])):
        yield block, [lines[row] for row in rows]
