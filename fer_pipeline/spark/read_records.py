"""Reading of input files in Spark's Python workers, for preprocessing and scoring.

Spark sends a worker the list of files, or parts of files, of its task, and the worker reads them.
Large CSV files are divided into parts, called blocks. Records are numbered within their block here;
their numbers in the file are computed after the records of all blocks have been counted, see
`data.block_offsets`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame

from fer_pipeline.data import fer_csv
from fer_pipeline.data.decoder_process import Crash, DecoderProcess
from fer_pipeline.data.fer_csv import CsvLayout, RequiredColumns
from fer_pipeline.data.image_decoding import DecodedFile, ImageReader
from fer_pipeline.data.image_records import collect_records
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.record_batch import ParsedRecords, RecordErrors
from fer_pipeline.data.text_lines import iterate_lines
from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.io.file_parts import (
    ContentReader,
    FileContent,
    FilePart,
    Unreadable,
    open_text,
)
from fer_pipeline.spark.steps import error_context

Batches = Iterator[pa.RecordBatch]
"""Arrow batches that a function for `mapInArrow` gets and yields."""

LINES_PER_BATCH = 512
"""Number of CSV lines that are parsed together: about 4 MB of text, which fit in the cache."""

_FILES_PER_GROUP = 64
_BYTES_PER_GROUP = 32 << 20


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
"""A function that reads the records of one Spark task. The Arrow batches tell what to read."""


@dataclass(frozen=True)
class SourceReader:
    """The input files, divided among Spark tasks, and the function that reads them to records.

    Attributes:
        batches: What each task reads.
        read: Function that reads the records of a task, in a Spark worker.
    """

    batches: DataFrame
    read: RecordReader


def read_csv_records(
    parts: Iterable[FilePart],
    layouts: Mapping[str, CsvLayout | Unreadable],
    required: RequiredColumns,
) -> RecordGroups:
    """Read the records of CSV files, or of parts of them.

    Args:
        parts: Parts of the files.
        layouts: Layout (columns and number of pixels) of files, by name, or why it is unknown. It
            must contain each file that is read in several parts, because only the first one
            contains the header. The layout of a file without entry is read from its header.
        required: Columns that a file must have.

    Yields:
        A list with a single `SourceRecords` for each list of lines. What cannot be read of a part
        is one record with an error.

    Raises:
        InputError: The header of a file lacks a required column, or the file is no text.
    """
    for part in parts:
        layout = layouts.get(part.name)
        if isinstance(layout, Unreadable):
            yield [_make_unreadable_record(part, 0, layout.reason)]
            continue
        if part.problem:
            yield [_make_unreadable_record(part, 0, part.problem)]
            continue
        block = CsvBlockParser(part.name, part.start, layout, required)
        with error_context(f"reading {part.name}, block at {part.start}"):
            try:
                for lines in _iterate_part_lines(part):
                    for first in range(0, len(lines), LINES_PER_BATCH):
                        records = block.parse_next_lines(lines[first : first + LINES_PER_BATCH])
                        if records is not None:
                            yield [records]
            except UnreadableFileError as error:
                problem = str(error).removeprefix(f"{part.name}: ")
                yield [_make_unreadable_record(part, block.record_count, problem)]


def count_csv_records(parts: Iterable[FilePart]) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each file, the start of the part, and the number of records in the part."""
    for part in parts:
        if part.problem:
            yield part.name, part.start, 1
            continue
        line_count = problem_count = 0
        try:
            for lines in _iterate_part_lines(part):
                line_count += sum(not fer_csv.is_blank(line) for line in lines)
        except UnreadableFileError:
            problem_count = 1
        # The first non-blank line of a file is its header.
        record_count = line_count - (part.start == 0 and line_count > 0)
        yield part.name, part.start, record_count + problem_count


def _iterate_part_lines(part: FilePart) -> Iterator[list[bytes]]:
    """Yield the lines of a part of a CSV file, in lists.

    Raises:
        UnreadableFileError: The file cannot be opened, or an error occurs while it is read.
        InputError: The file is an archive, is compressed, or has another encoding than UTF-8.
    """
    with open_text(part) as file:
        yield from iterate_lines(file, part.start, part.end)


def read_image_records(parts: Iterable[FilePart], read: ImageReader) -> RecordGroups:
    """Read image files; each file, or each face of a file, is one record.

    Args:
        parts: The files.
        read: Function that reads a file.

    Yields:
        An iterator of `SourceRecords` for each group of files. Each step of the iteration decodes a
        few files, so that only a few images are in memory at the same time.
    """
    with contextlib.closing(ContentReader()) as reader:
        for group in _group_files(parts):
            contents = [reader.read(part) for part in group]
            yield decode_images(contents, [part.name for part in group], read)


def _group_files(parts: Iterable[FilePart]) -> Iterator[list[FilePart]]:
    """Divide files into groups, by number and by size."""
    group: list[FilePart] = []
    byte_count = 0
    for part in parts:
        if group and (len(group) == _FILES_PER_GROUP or byte_count + part.size > _BYTES_PER_GROUP):
            yield group
            group, byte_count = [], 0
        group.append(part)
        byte_count += max(part.size, 0)
    if group:
        yield group


def decode_images(
    contents: Sequence[FileContent], names: Sequence[str], read: ImageReader
) -> Iterator[SourceRecords]:
    """Read image files in the worker's decoder process, and yield them a few at a time.

    Args:
        contents: Content of each file, or the reason why it cannot be read.
        names: Name of each file; its folders give the label and the split.
        read: Function that reads a file.

    Yields:
        The records of these few files, one record for each file or for each face of a file.
    """
    # Name of the file of each record that has not been yielded.
    sources_ahead: list[str] = []

    def iterate_images() -> Iterator[tuple[DecodedFile, str]]:
        """Yield each image of each file, and the name of the file."""
        for images, name in zip(_get_decoder(read).map(contents), names, strict=True):
            for image in _replace_crash(images):
                sources_ahead.append(name)
                yield image, name

    with error_context(f"reading image files from {names[0]} on"):
        for parsed in collect_records(iterate_images()):
            sources = pa.array(sources_ahead[: len(parsed)], pa.string())
            del sources_ahead[: len(parsed)]
            yield SourceRecords(
                sources=sources,
                blocks=pa.array(np.zeros(len(parsed), np.int64)),
                positions=np.zeros(len(parsed), np.int32),
                parsed=parsed,
            )


@functools.cache
def _get_decoder(read: ImageReader) -> DecoderProcess[FileContent, list[DecodedFile]]:
    """Return the decoder process of this Spark worker."""
    return DecoderProcess(read)


def _replace_crash(images: list[DecodedFile] | Crash) -> list[DecodedFile]:
    """Return the images of a file, or the problem of one that made the decoder crash."""
    if isinstance(images, Crash):
        return [DecodedFile(None, (Outcome.UNDECODABLE_IMAGE, str(images)))]
    return images


def _make_unreadable_record(part: FilePart, position: int, problem: str) -> SourceRecords:
    """Return the record that stands for what cannot be read of a CSV file or folder.

    Args:
        part: The file, or the part of it.
        position: Number of records of the part that could be read.
        problem: Why the others cannot be read.
    """
    if position or part.start or part.end is not None:
        end = "" if part.end is None else f" of its part up to byte {part.end}"
        problem = f"{problem}; the rest{end} is not read"
    errors = RecordErrors(1)
    errors.set_error(0, Outcome.UNREADABLE_FILE, problem)
    return SourceRecords(
        sources=pa.array([part.name], pa.string()),
        blocks=pa.array([part.start], pa.int64()),
        positions=np.array([position], np.int32),
        parsed=ParsedRecords(
            emotions=[None],
            usages=[None],
            texts=[part.name.encode()],
            images=np.zeros((1, 0, 0), np.uint8),
            errors=errors,
        ),
    )


class CsvBlockParser:
    """Parser of one block of a CSV file, which arrives in several batches of lines.

    Attributes:
        name: Name of the file.
        start: Start of the block in the file, in bytes.
        record_count: Number of records that were parsed.
    """

    def __init__(
        self, name: str, start: int, layout: CsvLayout | None, required: RequiredColumns
    ) -> None:
        """Create a parser for the lines of a block.

        Args:
            name: Name of the file.
            start: Start of the block in the file, in bytes; a block at 0 begins with the header.
            layout: Layout of the file (columns and number of pixels); None to read it from the
                header and the first rows.
            required: Columns that the file must have.
        """
        self.name = name
        self.start = start
        self._layout = layout
        self._required = required
        self.record_count = 0
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
        first_position = self.record_count
        self.record_count += len(rows)
        names = pa.DictionaryArray.from_arrays(np.zeros(len(rows), np.int8), [self.name])
        return SourceRecords(
            sources=names.cast(pa.string()),
            blocks=pa.array(np.full(len(rows), self.start, np.int64)),
            positions=np.arange(first_position, self.record_count, dtype=np.int32),
            parsed=fer_csv.parse_rows(rows, self._layout),
        )
