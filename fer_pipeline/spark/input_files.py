"""The files behind the paths that a user names: CSV files or folders of images."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the usual name among users of Spark

from fer_pipeline.data import fer_csv
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.fer_csv import CsvLayout, RequiredColumns
from fer_pipeline.errors import InputError, StorageError
from fer_pipeline.io.paths import parse_local_path
from fer_pipeline.spark.read_records import (
    COUNTS_DDL,
    RecordReader,
    count_csv_records,
    read_csv_records,
    read_image_records,
    source_name,
)
from fer_pipeline.spark.session import SMALLEST_SPLIT, get_max_partition_bytes, set_arrow_batch_size

log = logging.getLogger(__name__)

_CSV_NAME = r"(?i)\.csv(\.gz|\.bz2)?$"
_COMPRESSED_NAME = r"(?i)\.(gz|bz2)$"
_CSV_GLOB = "*.{[cC][sS][vV],[cC][sS][vV].[gG][zZ],[cC][sS][vV].[bB][zZ]2}"
_GLOB_CHARACTERS = re.compile(r"[\\{}\[\]*?]")
_IMAGE_NAME = r"(?i)\.(jpe?g|png|bmp|pgm|ppm|pnm|tiff?|webp|jp2|gif)$"

_LINES_PER_BATCH = 512
"""Lines of a CSV that a worker gets at once: about 4 MB of text, which fit into the cache."""

_IMAGES_PER_BATCH = 64
"""Image files that a worker gets at once, whole; they may be photos of many megabytes."""

_HEADER_LINES = 20
"""Lines that are read for the layout of a file."""

_HEADER_THREADS = 8

_URL = "_metadata.file_path AS url"


@dataclass(frozen=True)
class SourceReader:
    """The content of a source, and how its records are read.

    Attributes:
        batches: Content of the files.
        read: Function from batches of it, in a worker, to groups of records.
    """

    batches: DataFrame
    read: RecordReader


class InputFiles:
    """The files behind the paths that a user named.

    Attributes:
        paths: The paths as the user named them.
        kind: `csv` or `images`.
        file_count: Number of files.
        byte_count: Total size of the files, in bytes.
        compressed_byte_count: Total size of the compressed CSV files, in bytes.
    """

    def __init__(self, spark: SparkSession, paths: Sequence[str], kind: str = "auto") -> None:
        """List the files.

        Args:
            spark: The session.
            paths: Files, globs or folders (with all their subfolders), in any form that Spark
                reads. As everywhere in Spark, names that begin with a dot or an underscore are
                hidden.
            kind: `csv`, `images`, or `auto` to go by the names of the files.

        Raises:
            InputError: There is no file, or it is not clear what the files are.
        """
        self._spark = spark
        self.paths = list(paths)
        self._is_csv_only = False
        self._listed = self._read("binaryFile")
        self._files = _with_kind(self._listed.selectExpr("path", "length", _URL))
        totals = _totals_by_kind(self._files)
        self._empty_files = self._list_empty_files(sum(row.n for row in totals.values()))
        counts = Counter({name: row.n for name, row in totals.items()})
        counts.update(_kind_of_name(source_name(url)) for url in self._empty_files)
        self.kind = kind if kind != "auto" else _choose_kind(", ".join(paths), counts)
        # In a folder of CSV files other files are no input. In a folder of images every file is
        # one, or an image with an unusual name would be lost in silence.
        self._is_csv_only = self.kind == "csv" and "csv" in counts
        self.file_count = counts.total()
        if self._is_csv_only:
            self.file_count = counts["csv"]
            if counts.total() > self.file_count:
                skipped = counts.total() - self.file_count
                log.warning("%d files that are not named .csv are not read", skipped)
            totals = {name: row for name, row in totals.items() if name == "csv"}
            self._files = self._files.where("kind = 'csv'")
        self.byte_count = sum(row.bytes for row in totals.values())
        self.compressed_byte_count = sum(row.compressed_bytes for row in totals.values())

    def create_reader(self, required: RequiredColumns) -> SourceReader:
        """Return the reader of the files' records.

        Args:
            required: Columns that a CSV must have.
        """
        if self.kind == "csv":
            layouts = self._read_layouts(required)
            read = partial(read_csv_records, layouts=layouts, required=required)
            return SourceReader(self._lines(), read)
        contents = self._listed.selectExpr("content", _URL)
        if self._empty_files:
            empty = [(bytearray(), url) for url in self._empty_files]
            ddl = "content binary, url string"
            contents = contents.union(self._spark.createDataFrame(empty, ddl))
        set_arrow_batch_size(self._spark, _IMAGES_PER_BATCH)
        return SourceReader(contents, read_image_records)

    def compute_block_offsets(self, *, always: bool = False) -> tuple[BlockOffsets, int | None]:
        """Return the offsets of the blocks that tasks read.

        Args:
            always: Whether to count the records even if every file is one block.

        Returns:
            The offsets; and the number of records, None if they need not be counted.
        """
        if self.kind == "images":
            return BlockOffsets(), self.file_count
        if not always and self._files.where(self._is_splittable()).isEmpty():
            return BlockOffsets(), None
        counted = self._lines().mapInArrow(count_csv_records, COUNTS_DDL)
        totals = counted.groupBy("source", "block").sum("n").collect()
        # The header is no record.
        counts = [(source, block, n - (block == 0)) for source, block, n in totals]
        return BlockOffsets.from_counts(counts), sum(n for _, _, n in counts)

    def _lines(self) -> DataFrame:
        set_arrow_batch_size(self._spark, _LINES_PER_BATCH)
        # Bytes, not text: a line need not be valid UTF-8 to be a row, good or bad.
        return self._read("text").selectExpr(
            "cast(value AS binary)", _URL, "_metadata.file_block_start AS block"
        )

    def _list_empty_files(self, listed_count: int) -> list[str]:
        """Return the files without a byte: records too, though Spark skips them when it reads."""
        urls = self._listed.inputFiles()
        if len(urls) == listed_count:
            return []
        listed = {source_name(row.url) for row in self._files.select("url").collect()}
        return sorted(url for url in urls if source_name(url) not in listed)

    def _read(self, source_format: str) -> DataFrame:
        reader = self._spark.read.format(source_format).option("recursiveFileLookup", "true")
        if source_format == "text" and self._is_csv_only:
            reader = reader.option("pathGlobFilter", _CSV_GLOB)
        return reader.load([_escape_existing_path(path) for path in self.paths])

    def _is_splittable(self) -> str:
        """Return the SQL condition of files that Spark may cut into blocks for several tasks."""
        block = min(SMALLEST_SPLIT, get_max_partition_bytes(self._spark))
        return f"length > {block} AND NOT lower(url) LIKE '%.gz'"

    def _read_layouts(self, required: RequiredColumns) -> Mapping[str, CsvLayout]:
        """Return the layouts of the files that several tasks may share: one sees the header."""
        files = self._files.where(self._is_splittable()).select("url").collect()
        urls = [row.url for row in files]
        read_layout = partial(_read_layout, self._spark, required=required)
        with ThreadPoolExecutor(max_workers=_HEADER_THREADS) as pool:
            return dict(zip(urls, pool.map(read_layout, urls), strict=True))


def _read_layout(spark: SparkSession, url: str, required: RequiredColumns) -> CsvLayout:
    name = source_name(url)
    lines = spark.read.text(escape_glob(name)).select(F.col("value").cast("binary"))
    head = [bytes(row.value) for row in lines.head(_HEADER_LINES)]
    header, *rows = [line for line in head if not fer_csv.is_blank(line)] or [b""]
    return fer_csv.infer_pixel_count(fer_csv.read_header(header, name, required), rows)


def _with_kind(files: DataFrame) -> DataFrame:
    name = F.col("path")
    kind = F.when(name.rlike(_CSV_NAME), "csv").when(name.rlike(_IMAGE_NAME), "images")
    return files.withColumn("kind", kind.otherwise("other"))


def _totals_by_kind(files: DataFrame) -> dict[str, Row]:
    compressed = F.when(F.col("path").rlike(_COMPRESSED_NAME), F.col("length")).otherwise(0)
    totals = files.groupBy("kind").agg(
        F.count("*").alias("n"),
        F.sum("length").alias("bytes"),
        F.sum(compressed).alias("compressed_bytes"),
    )
    return {row.kind: row for row in totals.collect()}


def _kind_of_name(name: str) -> str:
    if re.search(_CSV_NAME, name):
        return "csv"
    return "images" if re.search(_IMAGE_NAME, name) else "other"


def escape_glob(path: str) -> str:
    """Return a glob pattern that matches this path and no other."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def _choose_kind(named: str, counts: Mapping[str, int]) -> str:
    if not counts:
        raise InputError(f"{named}: there is no file in it; name a CSV, or a folder of images")
    if counts.get("csv") and counts.get("images"):
        raise InputError(
            f"{named}: holds both CSV files ({counts['csv']}) and images ({counts['images']});"
            " say which are meant with input.format: csv or images"
        )
    if counts.get("csv") or counts.get("images"):
        return "csv" if counts.get("csv") else "images"
    raise InputError(
        f"{named}: none of its {counts['other']} files is named like a CSV or an image, and it is"
        " no finished dataset; say what they are with input.format: csv or images"
    )


def _escape_existing_path(path: str) -> str:
    """Return a path that exists under this very name as a glob that matches it alone."""
    if not _GLOB_CHARACTERS.search(path):
        return path
    try:
        exists = parse_local_path(path).exists()
    except StorageError:
        return path
    return _GLOB_CHARACTERS.sub(r"\\\g<0>", path) if exists else path
