"""What the Python workers make of a source: a table of records, one row for each that was found.

A record is a labelled image of the wanted size, or says why it is none. Records are numbered within
the block of the file that a task reads; the number in the file follows when all blocks are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fer_pipeline.data import fer_csv, images, split_assignment, split_keys
from fer_pipeline.data.arrow import binary_column
from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.fer_csv import CsvLayout
from fer_pipeline.data.outcomes import QuarantineReason, Split
from fer_pipeline.data.pixel_strings import MIN_SIZE
from fer_pipeline.data.record import (
    LabelDecision,
    LabelResolver,
    RawRecord,
    RecordError,
    apply_votes,
    excerpt,
)
from fer_pipeline.data.votes import Votes

RECORD_INFO_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("block", pa.int64()),  # where in the file the block begins that the record was read in
        ("position", pa.int32()),  # the record's 0-based number in the block
        ("outcome", pa.int8()),  # see `selection.OUTCOMES`
        ("detail", pa.string()),
        ("excerpt", pa.string()),
        ("fingerprint", pa.int64()),  # of all that the record says
        ("code", pa.int32()),  # the label's text as a number, -1 where it is none
        ("label", pa.int32()),  # the class, -1 where there is none
        ("split", pa.int8()),  # what the usage means, see `selection.SPLITS`; -1 where nothing
        ("image_hash", pa.binary()),  # null exactly where there is no image
        ("key", pa.int64()),  # see `splits.sampling_key`
        ("pixel_sum", pa.int64()),  # of the resized image, where it was asked for
        ("pixel_squares", pa.int64()),
    ]
)
"""What is known of a record besides its pixels."""

RECORD_SCHEMA = RECORD_INFO_SCHEMA.append(pa.field("image", pa.binary()))
"""A record: its facts and, unless it is to be quarantined, the resized image's pixels."""

Batches = Iterable[pa.RecordBatch]

_SPLIT_CODES: dict[Split | None, int] = {
    None: -1,
    **{split: code for code, split in enumerate(split_assignment.SPLITS)},
}


@dataclass(frozen=True)
class ParseOptions:
    """How records are read; travels to the workers.

    Attributes:
        judge: What becomes of a label and a usage.
        size: The side that images are brought to, in pixels.
        seed: Of the sampling keys.
        labelled: Whether a source must have labels.
        usage: Whether a source must have usages.
        moments: Whether to sum up the pixels, for the mean and deviation of a set.
        enhancement: What is done to an image before it is scaled.
        votes: On the labels, where the source's own do not count; Spark broadcasts many by itself.
        offsets: The number in its file of a block's first record, where it is not 0 and there are
            votes.
    """

    judge: LabelResolver
    size: int
    seed: int
    labelled: bool = True
    usage: bool = True
    moments: bool = False
    enhancement: Enhancement = field(default_factory=Enhancement)
    votes: Votes | None = None
    offsets: Mapping[tuple[str, int], int] = field(default_factory=dict)


def source_name(url: str) -> str:
    """How a source is called wherever a user reads it: the plain path of a local file."""
    path = unquote(url)
    return "/" + path.removeprefix("file:").lstrip("/") if path.startswith("file:") else path


def csv_records(
    reading: ParseOptions, layouts: Mapping[str, CsvLayout]
) -> Callable[[Batches], Batches]:
    """The function that reads lines of CSV files.

    Args:
        reading: How.
        layouts: The layout of each file that several tasks may share, by its URL: only one of them
            sees the header. Other files show theirs.

    Returns:
        A function for `mapInArrow` from batches of (line, file URL, start of the block) to records.
    """

    def read(batches: Batches) -> Batches:
        block: _Block | None = None
        for batch in batches:
            for (url, start), lines in _blocks(batch):
                if block is None or (block.url, block.start) != (url, start):
                    block = _Block(url, start, reading, layouts.get(url))
                records = block.parse(lines)
                if records:
                    first = block.count - len(records)
                    yield _table(records, block.name, start, first, reading)

    return read


def record_numbers(
    facts: pa.Table | pa.RecordBatch, offsets: Mapping[tuple[str, int], int]
) -> npt.NDArray[np.int64]:
    """The number of each record in its file.

    Args:
        facts: The columns `source`, `block` and `position`.
        offsets: The number of a block's first record, where it is not 0.
    """
    sources, blocks = facts.column("source").to_pylist(), facts.column("block").to_pylist()
    first = [offsets.get(place, 0) for place in zip(sources, blocks, strict=True)]
    return np.array(first, np.int64) + facts.column("position").to_numpy()


def csv_counts(batches: Batches) -> Batches:
    """Counts the lines of CSV files that are not blank, for `mapInArrow`.

    Args:
        batches: The same that `csv_records` takes.

    Yields:
        How many there are, `n`, by `source` and `block`: the first block's include the header.
    """
    for batch in batches:
        for (url, start), lines in _blocks(batch):
            n = sum(not fer_csv.is_blank(line) for line in lines)
            columns = {"source": [source_name(url)], "block": [start], "n": [n]}
            yield pa.RecordBatch.from_pydict(columns)


class _Block:
    """One block of a CSV file, as its lines come in."""

    def __init__(
        self, url: str, start: int, reading: ParseOptions, layout: CsvLayout | None
    ) -> None:
        self.url, self.start, self.name = url, start, source_name(url)
        self.count = 0
        self._reading, self._layout = reading, layout
        self._header_due = start == 0

    def parse(self, lines: Iterable[bytes]) -> list[RawRecord]:
        rows = [line for line in lines if not fer_csv.is_blank(line)]
        if self._header_due and rows:
            header, self._header_due = rows.pop(0), False
            self._layout = self._layout or fer_csv.read_header(
                header, self.name, labelled=self._reading.labelled, usage=self._reading.usage
            )
        if not rows:
            return []
        if self._layout is None:
            raise RuntimeError(f"{self.name}: no header for the block at {self.start}")
        if self._layout.pixel_count is None:
            self._layout = fer_csv.with_pixel_count(self._layout, rows)
        self.count += len(rows)
        return fer_csv.parse_rows(rows, self._layout)


def _blocks(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    line, url, start = (column.to_pylist() for column in batch.columns)
    for key, rows in groupby(range(len(line)), lambda row: (url[row], start[row])):
        yield key, [line[row] for row in rows]


def image_records(reading: ParseOptions) -> Callable[[Batches], Batches]:
    """The function that reads image files.

    The folder that holds an image names its emotion, and the folder around that one its usage.

    Returns:
        A function for `mapInArrow` from batches of (content, file URL) to records.
    """

    def read(batches: Batches) -> Batches:
        for batch in batches:
            content, urls = batch.column(0), batch.column(1).to_pylist()
            for row, url in enumerate(urls):
                raw = _read_image(content[row].as_py(), source_name(url))
                yield _table([raw], source_name(url), 0, 0, reading)

    return _joined(read)


def _joined(read: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """Puts small tables together: each one that goes back to Spark has a price."""

    def joined(batches: Batches) -> Batches:
        for batch in batches:
            tables = pa.Table.from_batches(list(read(iter([batch]))), RECORD_SCHEMA)
            yield from tables.combine_chunks().to_batches()

    return joined


def _read_image(data: bytes, path: str) -> RawRecord:
    folders = path.split("/")[:-1]
    emotion = folders[-1] if folders else None
    usage = folders[-2] if len(folders) > 1 else None
    image = images.decode_gray(data)
    fault = None
    if image is None:
        detail = "no bytes" if not data else f"{len(data)} bytes that are no whole image"
        fault = RecordError(QuarantineReason.IMAGE, detail)
    elif min(image.shape) < MIN_SIZE:
        height, width = image.shape
        fault = RecordError(
            QuarantineReason.SMALL, f"{width}x{height} pixels, of {MIN_SIZE}x{MIN_SIZE} at least"
        )
    return RawRecord(emotion, usage, path.encode("utf-8", "replace"), image, fault)


def _table(
    records: Sequence[RawRecord], source: str, block: int, first: int, reading: ParseOptions
) -> pa.RecordBatch:
    """One row for each record."""
    count = len(records)
    verdicts = [reading.judge(raw.emotion, raw.usage) for raw in records]
    if reading.votes is not None:
        number = reading.offsets.get((source, block), 0) + first
        verdicts = apply_votes(records, verdicts, reading.votes, number, source)
    faults = [
        # A broken line has no label to judge; otherwise the label is read before the pixels.
        raw.fault
        if raw.fault and raw.fault.reason is QuarantineReason.BROKEN
        else verdict.fault or raw.fault
        for raw, verdict in zip(records, verdicts, strict=True)
    ]
    hashes = [
        None if fault or raw.image is None else split_keys.image_hash(raw.image)
        for raw, fault in zip(records, faults, strict=True)
    ]
    pixels = _prepared(records, reading)
    flat = pixels.reshape(count, -1)
    sound = np.array([content is not None for content in hashes])
    nothing = pa.nulls(count, pa.int64())
    columns = {
        "source": pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [source]).cast("string"),
        "block": np.full(count, block, np.int64),
        "position": np.arange(first, first + count, dtype=np.int32),
        "outcome": [
            _outcome(fault, verdict) for fault, verdict in zip(faults, verdicts, strict=True)
        ],
        "detail": [fault and fault.detail for fault in faults],
        "excerpt": [
            excerpt(raw.text) if fault else None for raw, fault in zip(records, faults, strict=True)
        ],
        "fingerprint": [
            _fingerprint(raw, content) for raw, content in zip(records, hashes, strict=True)
        ],
        "code": [-1 if verdict.code is None else verdict.code for verdict in verdicts],
        "label": [-1 if verdict.label is None else verdict.label for verdict in verdicts],
        "split": [_SPLIT_CODES[verdict.split] for verdict in verdicts],
        "image_hash": hashes,
        # A record without an image has no copies; its key only has to spread it over the tasks.
        "key": [
            first + row if content is None else split_keys.sampling_key(content, reading.seed)
            for row, content in enumerate(hashes)
        ],
        "pixel_sum": flat.sum(axis=1, dtype=np.int64) if reading.moments else nothing,
        "pixel_squares": np.square(flat, dtype=np.int64).sum(axis=1)
        if reading.moments
        else nothing,
        "image": binary_column(flat, sound),
    }
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, field.type)
        for value, field in zip(columns.values(), RECORD_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def _outcome(fault: RecordError | None, verdict: LabelDecision) -> int:
    why = fault.reason if fault else verdict.cause
    return split_assignment.KEPT if why is None else split_assignment.OUTCOMES.index(why)


def _fingerprint(raw: RawRecord, content: bytes | None) -> int:
    said = f"\0{raw.emotion}\0{raw.usage}".encode("utf-8", "replace")
    digest = hashlib.blake2b((content or raw.text) + said, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _prepared(records: Sequence[RawRecord], reading: ParseOptions) -> npt.NDArray[np.uint8]:
    """The pixels of each image, enhanced and brought to its size."""
    size = reading.size
    pixels = np.zeros((len(records), size, size), np.uint8)
    for raw, into in zip(records, pixels, strict=True):
        if raw.image is not None:
            into[:] = images.resize(enhance(raw.image, reading.enhancement), size)
    return pixels
