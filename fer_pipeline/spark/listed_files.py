"""Input files that the driver lists, and that Spark's Python workers read."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline.data import fer_csv
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.fer_csv import CsvLayout, RequiredColumns
from fer_pipeline.data.image_decoding import ImageReader
from fer_pipeline.data.text_lines import iterate_lines
from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.io import archives, file_parts, input_listing
from fer_pipeline.io.file_parts import FilePart, Unreadable
from fer_pipeline.io.threads import map_in_threads
from fer_pipeline.spark.file_kinds import (
    COMPRESSED_NAME,
    COMPRESSION_FACTOR,
    CSV_NAME,
    IMAGE_NAME,
    choose_kind,
    warn_about_ignored_files,
)
from fer_pipeline.spark.read_plan import PART_SCHEMA, plan_tasks
from fer_pipeline.spark.read_records import (
    Batches,
    RecordGroups,
    SourceReader,
    count_csv_records,
    read_csv_records,
    read_image_records,
)
from fer_pipeline.spark.session import SMALLEST_SPLIT, get_bytes_setting, get_max_partition_bytes

log = logging.getLogger(__name__)

TASKS_PER_CORE = 3
"""Number of tasks for each core, so that one slow task does not keep the others waiting."""
_HEADER_BYTES = 1 << 20
"""Number of bytes of a file that are read to determine its layout."""
HEADER_LINES = 20
_MANY_FOLDERS = 4096
"""Number of folders from which on Spark's tasks list them, and not threads of the driver."""
SetAside = Callable[[pa.Table], pa.Array]
"""A function that returns for each listed file (columns FILE_SCHEMA) whether others read it."""

COUNTS_DDL = "source string, block bigint, n bigint"


class ListedFiles:
    """Input files that the driver lists and the Python workers read; see `InputFiles`."""

    def __init__(
        self,
        spark: SparkSession,
        paths: Sequence[str],
        kind: str = "auto",
        set_aside: SetAside | None = None,
    ) -> None:
        """List the files, and determine their kind, number and size.

        Args:
            spark: The session.
            paths: Files, globs, folders and archives, see `input_listing.list_inputs`.
            kind: `csv`, `images`, or `auto` to determine the kind from the names of the files.
            set_aside: Function that decides which files are left to others.

        Raises:
            InputError: There are no files, or `kind` is `auto` and the kind cannot be determined.
        """
        self._spark = spark
        self.paths = list(paths)
        listing = input_listing.list_inputs(paths, self._map_folders)
        for reason, count in listing.skipped.items():
            log.warning("not read: %d %s", count, reason)
        self._files = listing.files
        left_count = 0
        if set_aside is not None and kind != "csv":
            is_left = set_aside(listing.files)
            self._files = listing.files.filter(pc.invert(is_left))
            left_count = pc.sum(is_left).as_py() or 0
        counts = _count_kinds(self._files)
        if not counts["csv"]:
            # What is set aside is read like images, so that the other files are, too.
            counts["images"] += left_count
        self.kind = kind if kind != "auto" else choose_kind(", ".join(paths), counts)
        if self.kind == "csv" and counts["csv"]:
            is_read = pc.or_(_match_name(self._files, CSV_NAME), self._files["problem"].is_valid())
            self._files = self._files.filter(is_read)
            warn_about_ignored_files(counts.total() - len(self._files))
        self._sizes = pc.fill_null(self._files["size"], 0).to_numpy().clip(0)
        self._is_compressed = np.zeros(len(self._files), bool)
        if self.kind == "csv":
            self._is_compressed = _match_name(self._files, COMPRESSED_NAME).to_numpy(
                zero_copy_only=False
            )
        self.file_count = len(self._files)
        self.byte_count = int(self._sizes.sum())
        self.compressed_byte_count = int(self._sizes[self._is_compressed].sum())

    def create_reader(self, required: RequiredColumns, read_image: ImageReader) -> SourceReader:
        """Create a reader of the records, see `InputFiles`."""
        frame, iterate_parts = self._task_frame
        read_parts: Callable[[Iterable[FilePart]], RecordGroups]
        if self.kind == "images":
            read_parts = partial(read_image_records, read=read_image)
        else:
            layouts = self._read_layouts(required)
            read_parts = partial(read_csv_records, layouts=layouts, required=required)

        def read(batches: Batches) -> RecordGroups:
            """Read the records of a task."""
            return read_parts(iterate_parts(batches))

        return SourceReader(frame, read)

    def compute_block_offsets(self, *, always: bool = False) -> tuple[BlockOffsets, int | None]:
        """Return the offset of each block, and the number of records, see `InputFiles`."""
        if self.kind == "images":
            return BlockOffsets(), self.file_count
        if not always and not self._block_counts.max(initial=1) > 1:
            return BlockOffsets(), None
        frame, iterate_parts = self._task_frame

        def count(batches: Batches) -> Batches:
            """Count the records of the parts of a task."""
            names, starts, counts = [], [], []
            for name, start, record_count in count_csv_records(iterate_parts(batches)):
                names.append(name)
                starts.append(start)
                counts.append(record_count)
            yield pa.RecordBatch.from_pydict({"source": names, "block": starts, "n": counts})

        counts = [tuple(row) for row in frame.mapInArrow(count, COUNTS_DDL).collect()]
        return BlockOffsets.from_counts(counts), sum(n for _, _, n in counts)

    def _map_folders(
        self, list_folder: Callable[[Any], Any], folders: Sequence[Any]
    ) -> Iterable[Any]:
        """Apply a function to all folders, in threads, or in Spark tasks if there are many."""
        if len(folders) < _MANY_FOLDERS:
            return map_in_threads(list_folder, folders)
        context = self._spark.sparkContext
        return (
            context.parallelize(folders, TASKS_PER_CORE * context.defaultParallelism)
            .map(list_folder)
            .collect()
        )

    @functools.cached_property
    def _task_bytes(self) -> int:
        """Number of bytes that one task should read, including the cost of opening files."""
        parallelism = self._spark.sparkContext.defaultParallelism
        total = self.byte_count + self.file_count * self._open_cost
        by_core = max(SMALLEST_SPLIT, total // (TASKS_PER_CORE * parallelism))
        return min(by_core, get_max_partition_bytes(self._spark) or by_core)

    @functools.cached_property
    def _open_cost(self) -> int:
        """Number of bytes that could be read in the time that it takes to open a file."""
        return get_bytes_setting(self._spark, "spark.sql.files.openCostInBytes")

    @functools.cached_property
    def _block_counts(self) -> npt.NDArray[np.int64]:
        """Number of parts in which each file is read, of shape (files,)."""
        ones = np.ones(len(self._files), np.int64)
        if self.kind == "images":
            return ones
        is_divided = ~self._is_compressed & self._files["archive"].is_null().to_numpy()
        return np.where(is_divided, np.maximum(ones, -(-self._sizes // self._task_bytes)), ones)

    @functools.cached_property
    def _task_frame(self) -> tuple[DataFrame, Callable[[Batches], Iterator[FilePart]]]:
        """The division of the files among tasks, see `plan_tasks`."""
        counts = self._block_counts
        file_index = np.repeat(np.arange(len(counts)), counts)
        block_index = np.arange(len(file_index)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = block_index * self._task_bytes
        is_last = block_index == counts[file_index] - 1
        sizes = np.where(is_last, self._sizes[file_index] - starts, self._task_bytes)
        parts = self._files.take(pa.array(file_index))
        # A file that is read in several parts may be read twice, and may grow in between.
        ends = np.minimum(starts + self._task_bytes, self._sizes[file_index])
        ends = pa.array(ends, mask=counts[file_index] == 1)
        parts = parts.append_column("start", pa.array(starts)).append_column("end", ends)
        weights = sizes * np.where(self._is_compressed, COMPRESSION_FACTOR, 1)[file_index]
        weights = np.where(self._continues_archive[file_index], 0, weights + self._open_cost)
        return plan_tasks(self._spark, parts.cast(PART_SCHEMA), weights, self._task_bytes)

    @functools.cached_property
    def _continues_archive(self) -> npt.NDArray[np.bool_]:
        """Marks of the files that are in the same compressed tar archive as the file before.

        Such an archive can only be read from its start to its end.
        """
        if self._files["archive"].null_count == len(self._files):
            return np.zeros(len(self._files), bool)
        archive_names = self._files["archive"].to_pylist()
        return np.array(
            [
                name is not None and name == before and not archives.is_seekable_archive_name(name)
                for name, before in zip(archive_names, [None, *archive_names[:-1]], strict=True)
            ],
            bool,
        )

    def _read_layouts(self, required: RequiredColumns) -> Mapping[str, CsvLayout | Unreadable]:
        """Read the layout of each CSV file that several tasks read.

        The layout consists of the columns and the number of pixels per image. It is read in
        advance, because only the first of these tasks sees the header.

        Raises:
            InputError: A file lacks a required column, or is no text.
        """
        names = self._files["name"].filter(pa.array(self._block_counts > 1)).to_pylist()
        layouts = map_in_threads(partial(_read_layout, required=required), names)
        return dict(zip(names, layouts, strict=True))


def _read_layout(name: str, required: RequiredColumns) -> CsvLayout | Unreadable:
    """Read the layout (columns and number of pixels per image) of a CSV file from its first lines.

    Returns:
        The layout, or the reason why the file cannot be read.

    Raises:
        InputError: The file lacks a required column, or is no text.
    """
    head: list[bytes] = []
    try:
        with file_parts.open_text(FilePart(name, -1)) as file:
            for lines in iterate_lines(file, chunk_bytes=_HEADER_BYTES):
                head += [line for line in lines if not fer_csv.is_blank(line)]
                if len(head) >= HEADER_LINES:
                    break
    except UnreadableFileError as error:
        return Unreadable(str(error).removeprefix(f"{name}: "))
    return fer_csv.parse_layout(head, name, required)


def _match_name(files: pa.Table, pattern: str) -> pa.Array:
    """Return whether the name of each file matches a regular expression."""
    return pc.match_substring_regex(files["name"].combine_chunks(), pattern)


def _count_kinds(files: pa.Table) -> Counter[str]:
    """Count the files whose names are those of CSV files (`csv`), `images`, and `other` files."""
    csv_count = pc.sum(_match_name(files, CSV_NAME)).as_py() or 0
    image_count = pc.sum(_match_name(files, IMAGE_NAME)).as_py() or 0
    other_count = len(files) - csv_count - image_count
    return Counter(csv=csv_count, images=image_count, other=other_count)
