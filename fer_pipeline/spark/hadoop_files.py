"""Input files on a filesystem that only Hadoop knows, which Spark's JVM lists and reads.

Such a filesystem, for example `viewfs:` or `dbfs:`, may be configured in the cluster alone. As
usual in Spark, files with names that begin with a dot or an underscore are ignored there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from urllib.parse import unquote

import pyarrow as pa
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the usual name among users of Spark

from fer_pipeline.data import fer_csv
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.fer_csv import CsvLayout, RequiredColumns
from fer_pipeline.data.image_decoding import ImageReader
from fer_pipeline.io.threads import map_in_threads
from fer_pipeline.spark.file_kinds import (
    COMPRESSED_NAME,
    CSV_NAME,
    IMAGE_NAME,
    choose_kind,
    warn_about_ignored_files,
)
from fer_pipeline.spark.listed_files import COUNTS_DDL, HEADER_LINES
from fer_pipeline.spark.read_records import (
    LINES_PER_BATCH,
    Batches,
    CsvBlockParser,
    RecordGroups,
    SourceReader,
    decode_images,
)
from fer_pipeline.spark.session import SMALLEST_SPLIT, get_max_partition_bytes, set_arrow_batch_size
from fer_pipeline.spark.steps import error_context

_CSV_GLOB = "*.{[cC][sS][vV],[cC][sS][vV].[gG][zZ],[cC][sS][vV].[bB][zZ]2}"

_IMAGES_PER_BATCH = 16
"""Number of image files in a batch for a worker; each file may be a photo of many megabytes, and
the JVM holds a batch in memory."""

_URL = "_metadata.file_path AS url"


class HadoopFiles:
    """Input files that Spark's JVM lists and reads; see `input_files.InputFiles`."""

    def __init__(self, spark: SparkSession, paths: Sequence[str], kind: str = "auto") -> None:
        """List the files, and determine their kind, number and size.

        Args:
            spark: The session.
            paths: URLs of files, globs or folders (including subfolders), in any form that Spark
                reads.
            kind: `csv`, `images`, or `auto` to determine the kind from the names of the files.

        Raises:
            InputError: There are no files, or `kind` is `auto` and the kind cannot be determined.
        """
        self._spark = spark
        self.paths = list(paths)
        self._is_csv_only = False
        self._listed = self._read_files("binaryFile")
        self._files = _add_kind_column(self._listed.selectExpr("path", "length", _URL))
        totals = _compute_totals_by_kind(self._files)
        self._empty_files = self._list_empty_files(sum(row.n for row in totals.values()))
        counts = Counter[str]({name: row.n for name, row in totals.items()})
        counts.update(_classify_file_name(_get_source_name(url)) for url in self._empty_files)
        self.kind = kind if kind != "auto" else choose_kind(", ".join(paths), counts)
        self._is_csv_only = self.kind == "csv" and "csv" in counts
        self.file_count = counts.total()
        if self._is_csv_only:
            self.file_count = counts["csv"]
            warn_about_ignored_files(counts.total() - self.file_count)
            totals = {name: row for name, row in totals.items() if name == "csv"}
            self._files = self._files.where("kind = 'csv'")
        self.byte_count = sum(row.bytes for row in totals.values())
        self.compressed_byte_count = sum(row.compressed_bytes for row in totals.values())

    def create_reader(self, required: RequiredColumns, read_image: ImageReader) -> SourceReader:
        """Create a reader of the records, and set the session's Arrow batch size for it."""
        if self.kind == "csv":
            layouts = self._read_layouts(required)
            read = partial(_read_csv_lines, layouts=layouts, required=required)
            return SourceReader(self._read_lines(), read)
        contents = self._listed.selectExpr("content", _URL)
        if self._empty_files:
            empty = [(bytearray(), url) for url in self._empty_files]
            ddl = "content binary, url string"
            contents = contents.union(self._spark.createDataFrame(empty, ddl))
        set_arrow_batch_size(self._spark, _IMAGES_PER_BATCH)
        return SourceReader(contents, partial(_read_contents, read=read_image))

    def compute_block_offsets(self, *, always: bool = False) -> tuple[BlockOffsets, int | None]:
        """Return the offset of each block, and the number of records in all files."""
        if self.kind == "images":
            return BlockOffsets(), self.file_count
        if not always and self._files.where(self._build_splittable_condition()).isEmpty():
            return BlockOffsets(), None
        counted = self._read_lines().mapInArrow(_count_csv_lines, COUNTS_DDL)
        totals = counted.groupBy("source", "block").sum("n").collect()
        # The first block of a file includes the header, which is not a record.
        counts = [(source, block, n - (block == 0)) for source, block, n in totals]
        return BlockOffsets.from_counts(counts), sum(n for _, _, n in counts)

    def _read_lines(self) -> DataFrame:
        """Return the lines of the CSV files, and set the Arrow batch size of the session for them.

        The columns are the line as bytes, the URL of its file, and the start of the block (the part
        of the file that one Spark task reads) in bytes.
        """
        set_arrow_batch_size(self._spark, LINES_PER_BATCH)
        # The lines are read as bytes, because a line may contain invalid UTF-8.
        return self._read_files("text").selectExpr(
            "cast(value AS binary)", _URL, "_metadata.file_block_start AS block"
        )

    def _list_empty_files(self, listed_count: int) -> list[str]:
        """Return the URLs of the empty files, which Spark omits when it reads files.

        Args:
            listed_count: Number of files that are not empty.
        """
        urls = self._listed.inputFiles()
        if len(urls) == listed_count:
            return []
        listed = {_get_source_name(row.url) for row in self._files.select("url").collect()}
        return sorted(url for url in urls if _get_source_name(url) not in listed)

    def _read_files(self, spark_format: str) -> DataFrame:
        """Read the files, lazily, with one of Spark's data sources: `text` or `binaryFile`.

        If some files have CSV names, `text` reads only these files.
        """
        reader = self._spark.read.format(spark_format).option("recursiveFileLookup", "true")
        if spark_format == "text" and self._is_csv_only:
            reader = reader.option("pathGlobFilter", _CSV_GLOB)
        return reader.load(self.paths)

    def _build_splittable_condition(self) -> str:
        """Return a SQL condition for the files that Spark may divide among several tasks."""
        block = min(SMALLEST_SPLIT, get_max_partition_bytes(self._spark))
        return f"length > {block} AND NOT lower(url) LIKE '%.gz'"

    def _read_layouts(self, required: RequiredColumns) -> Mapping[str, CsvLayout]:
        """Read the layout of each CSV file that Spark may divide among several tasks.

        The layout consists of the columns and the number of pixels per image. It is read in
        advance, because only the first of these tasks sees the header.

        Args:
            required: Columns that a CSV file must have.

        Returns:
            The layouts by URL of the file.

        Raises:
            InputError: A file lacks a required column.
        """
        files = self._files.where(self._build_splittable_condition()).select("url").collect()
        urls = [row.url for row in files]
        read_layout = partial(_read_layout, self._spark, required=required)
        return dict(zip(urls, map_in_threads(read_layout, urls), strict=True))


def _read_layout(spark: SparkSession, url: str, required: RequiredColumns) -> CsvLayout:
    """Read the layout (columns and number of pixels per image) of a CSV file from its first lines.

    Raises:
        InputError: The file lacks a required column.
    """
    name = _get_source_name(url)
    lines = spark.read.text(_escape_glob(name)).select(F.col("value").cast("binary"))
    head = [bytes(row.value) for row in lines.head(HEADER_LINES)]
    return fer_csv.parse_layout(head, name, required)


def _add_kind_column(files: DataFrame) -> DataFrame:
    """Add the column `kind` (`csv`, `images` or `other`), derived from the file names."""
    name = F.col("path")
    kind = F.when(name.rlike(CSV_NAME), "csv").when(name.rlike(IMAGE_NAME), "images")
    return files.withColumn("kind", kind.otherwise("other"))


def _compute_totals_by_kind(files: DataFrame) -> dict[str, Row]:
    """Return the number and the total size of the files of each kind.

    Args:
        files: Files with the columns `path`, `length` and `kind`.

    Returns:
        A row for each kind, with the columns `n` (number of files), `bytes` (total size) and
        `compressed_bytes` (total size of the compressed files).
    """
    compressed = F.when(F.col("path").rlike(COMPRESSED_NAME), F.col("length")).otherwise(0)
    totals = files.groupBy("kind").agg(
        F.count("*").alias("n"),
        F.sum("length").alias("bytes"),
        F.sum(compressed).alias("compressed_bytes"),
    )
    return {row.kind: row for row in totals.collect()}


def _classify_file_name(name: str) -> str:
    """Return the kind of a file with the given name: `csv`, `images` or `other`."""
    if re.search(CSV_NAME, name):
        return "csv"
    return "images" if re.search(IMAGE_NAME, name) else "other"


def _escape_glob(path: str) -> str:
    """Return a glob pattern that matches only the given path."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def _get_source_name(url: str) -> str:
    """Return the name of a file to show to users: its URL, without percent-encoding."""
    return unquote(url)


def _read_csv_lines(
    batches: Batches, layouts: Mapping[str, CsvLayout], required: RequiredColumns
) -> RecordGroups:
    """Parse CSV lines to records; Spark has already read the lines from the files.

    Args:
        batches: Arrow batches with the columns line (binary), URL of the file, and start of the
            block in bytes.
        layouts: Layout (columns and number of pixels) by URL, of each file that several tasks may
            read, because only one of them sees the header.
        required: Columns that a file must have.

    Yields:
        A list with a single `SourceRecords` for each block in each batch.

    Raises:
        InputError: The header of a file lacks a required column.
    """
    block: CsvBlockParser | None = None
    for batch in batches:
        for (url, start), lines in _group_lines_by_block(batch):
            name = _get_source_name(url)
            if block is None or (block.name, block.start) != (name, start):
                block = CsvBlockParser(name, start, layouts.get(url), required)
            with error_context(f"parsing {name}, block at {start}"):
                records = block.parse_next_lines(lines)
            if records is not None:
                yield [records]


def _count_csv_lines(batches: Batches) -> Batches:
    """Count the non-blank lines of CSV files, for `mapInArrow`.

    Args:
        batches: Arrow batches with the columns line (binary), URL of the file, and start of the
            block in bytes.

    Yields:
        Batches of one row with the columns `source` (name of the file), `block` (start of the
        block) and `n` (number of non-blank lines, including the header of the file). If the lines
        of a block arrive in several batches, the block has several rows.
    """
    for batch in batches:
        for (url, start), lines in _group_lines_by_block(batch):
            line_count = sum(not fer_csv.is_blank(line) for line in lines)
            columns = {"source": [_get_source_name(url)], "block": [start], "n": [line_count]}
            yield pa.RecordBatch.from_pydict(columns)


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


def _read_contents(batches: Batches, read: ImageReader) -> RecordGroups:
    """Decode image files; Spark has already read the files.

    Args:
        batches: Arrow batches with the columns content (binary) and URL of the file.
        read: Function that reads a file.

    Yields:
        An iterator of `SourceRecords` for each batch.
    """
    for batch in batches:
        contents, urls = batch.columns
        names = [_get_source_name(url) for url in urls.to_pylist()]
        yield decode_images(contents.to_pylist(), names, read)
