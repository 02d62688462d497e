"""Listing of the input files given by the user: CSV files or folders of images."""

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
    count_csv_lines,
    get_source_name,
    read_csv_records,
    read_image_records,
)
from fer_pipeline.spark.session import SMALLEST_SPLIT, get_max_partition_bytes, set_arrow_batch_size

log = logging.getLogger(__name__)

_CSV_NAME = r"(?i)\.csv(\.gz|\.bz2)?$"
_COMPRESSED_NAME = r"(?i)\.(gz|bz2)$"
_CSV_GLOB = "*.{[cC][sS][vV],[cC][sS][vV].[gG][zZ],[cC][sS][vV].[bB][zZ]2}"
_GLOB_CHARACTERS = re.compile(r"[\\{}\[\]*?]")
_IMAGE_NAME = r"(?i)\.(jpe?g|png|bmp|pgm|ppm|pnm|tiff?|webp|jp2|gif)$"

_LINES_PER_BATCH = 512
"""Number of CSV lines in a batch for a worker: about 4 MB of text, which fit in the cache."""

_IMAGES_PER_BATCH = 64
"""Number of image files in a batch for a worker; each file may be a photo of many megabytes."""

_HEADER_LINES = 20
"""Number of lines that are read to determine the layout of a file."""

_HEADER_THREADS = 8

_URL = "_metadata.file_path AS url"


@dataclass(frozen=True)
class SourceReader:
    """The content of input files, and the function that parses it to records.

    Attributes:
        batches: Content of the files, one row for each CSV line or image file.
        read: Function that converts Arrow batches of these rows to records, in a Spark worker.
    """

    batches: DataFrame
    read: RecordReader


class InputFiles:
    """The input files that the paths given by the user refer to.

    Attributes:
        paths: Paths as given by the user.
        kind: Kind of the files, `csv` or `images`.
        file_count: Number of files.
        byte_count: Total size of the files, in bytes.
        compressed_byte_count: Total size of the compressed CSV files, in bytes.
    """

    def __init__(self, spark: SparkSession, paths: Sequence[str], kind: str = "auto") -> None:
        """List the files, and determine their kind, number and size.

        If there are CSV files, files with other names are ignored with a warning.

        Args:
            spark: The session.
            paths: Files, globs or folders (including subfolders), in any form that Spark reads. As
                usual in Spark, files with names that begin with a dot or an underscore are ignored.
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
        counts = Counter({name: row.n for name, row in totals.items()})
        counts.update(_classify_file_name(get_source_name(url)) for url in self._empty_files)
        self.kind = kind if kind != "auto" else _choose_kind(", ".join(paths), counts)
        # In a folder with CSV files, other files are ignored. In a folder of images, every file
        # counts as an image. Otherwise an image with an unusual name would be lost without a
        # message.
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
        """Create a reader of the records, and set the session's Arrow batch size for it.

        Args:
            required: Columns that a CSV file must have.

        Raises:
            InputError: A CSV file that Spark may divide among several tasks lacks a required
                column. Other CSV files are checked later, by the tasks that read them.
        """
        if self.kind == "csv":
            layouts = self._read_layouts(required)
            read = partial(read_csv_records, layouts=layouts, required=required)
            return SourceReader(self._read_lines(), read)
        contents = self._listed.selectExpr("content", _URL)
        if self._empty_files:
            empty = [(bytearray(), url) for url in self._empty_files]
            ddl = "content binary, url string"
            contents = contents.union(self._spark.createDataFrame(empty, ddl))
        set_arrow_batch_size(self._spark, _IMAGES_PER_BATCH)
        return SourceReader(contents, read_image_records)

    def compute_block_offsets(self, *, always: bool = False) -> tuple[BlockOffsets, int | None]:
        """Return the offset of each block, and the number of records in all files.

        A block is the part of a file that one Spark task reads. Its offset is the number of records
        before it in the file. Counting the records of CSV files takes a pass over the files.

        Args:
            always: Whether to count the records even if no file can have several blocks.

        Returns:
            The offsets, and the number of records. If the records are not counted, all offsets are
            0, and the number is None.
        """
        if self.kind == "images":
            return BlockOffsets(), self.file_count
        if not always and self._files.where(self._build_splittable_condition()).isEmpty():
            return BlockOffsets(), None
        counted = self._read_lines().mapInArrow(count_csv_lines, COUNTS_DDL)
        totals = counted.groupBy("source", "block").sum("n").collect()
        # The first block of a file includes the header, which is not a record.
        counts = [(source, block, n - (block == 0)) for source, block, n in totals]
        return BlockOffsets.from_counts(counts), sum(n for _, _, n in counts)

    def _read_lines(self) -> DataFrame:
        """Return the lines of the CSV files, and set the Arrow batch size of the session for them.

        The columns are the line as bytes, the URL of its file, and the start of the block (the part
        of the file that one Spark task reads) in bytes.
        """
        set_arrow_batch_size(self._spark, _LINES_PER_BATCH)
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
        listed = {get_source_name(row.url) for row in self._files.select("url").collect()}
        return sorted(url for url in urls if get_source_name(url) not in listed)

    def _read_files(self, spark_format: str) -> DataFrame:
        """Read the files, lazily, with one of Spark's data sources: `text` or `binaryFile`.

        If some files have CSV names, `text` reads only these files.
        """
        reader = self._spark.read.format(spark_format).option("recursiveFileLookup", "true")
        if spark_format == "text" and self._is_csv_only:
            reader = reader.option("pathGlobFilter", _CSV_GLOB)
        return reader.load([_escape_existing_path(path) for path in self.paths])

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
        with ThreadPoolExecutor(max_workers=_HEADER_THREADS) as pool:
            return dict(zip(urls, pool.map(read_layout, urls), strict=True))


def _read_layout(spark: SparkSession, url: str, required: RequiredColumns) -> CsvLayout:
    """Read the layout (columns and number of pixels per image) of a CSV file from its first lines.

    Raises:
        InputError: The file lacks a required column.
    """
    name = get_source_name(url)
    lines = spark.read.text(escape_glob(name)).select(F.col("value").cast("binary"))
    head = [bytes(row.value) for row in lines.head(_HEADER_LINES)]
    header, *rows = [line for line in head if not fer_csv.is_blank(line)] or [b""]
    return fer_csv.add_pixel_count(fer_csv.parse_header(header, name, required), rows)


def _add_kind_column(files: DataFrame) -> DataFrame:
    """Add the column `kind` (`csv`, `images` or `other`), derived from the file names."""
    name = F.col("path")
    kind = F.when(name.rlike(_CSV_NAME), "csv").when(name.rlike(_IMAGE_NAME), "images")
    return files.withColumn("kind", kind.otherwise("other"))


def _compute_totals_by_kind(files: DataFrame) -> dict[str, Row]:
    """Return the number and the total size of the files of each kind.

    Args:
        files: Files with the columns `path`, `length` and `kind`.

    Returns:
        A row for each kind, with the columns `n` (number of files), `bytes` (total size) and
        `compressed_bytes` (total size of the compressed files).
    """
    compressed = F.when(F.col("path").rlike(_COMPRESSED_NAME), F.col("length")).otherwise(0)
    totals = files.groupBy("kind").agg(
        F.count("*").alias("n"),
        F.sum("length").alias("bytes"),
        F.sum(compressed).alias("compressed_bytes"),
    )
    return {row.kind: row for row in totals.collect()}


def _classify_file_name(name: str) -> str:
    """Return the kind of a file with the given name: `csv`, `images` or `other`."""
    if re.search(_CSV_NAME, name):
        return "csv"
    return "images" if re.search(_IMAGE_NAME, name) else "other"


def escape_glob(path: str) -> str:
    """Return a glob pattern that matches only the given path."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def _choose_kind(path_list: str, counts: Mapping[str, int]) -> str:
    """Choose how to read the files, as `csv` or as `images`, from the number of files of each kind.

    Args:
        path_list: Paths given by the user, as text for error messages.
        counts: Number of files by kind: `csv`, `images` and `other`.

    Raises:
        InputError: There are no files, both CSV files and images, or only other files.
    """
    if not counts:
        raise InputError(f"{path_list}: contains no files; give a CSV file or a folder of images")
    if counts.get("csv") and counts.get("images"):
        raise InputError(
            f"{path_list}: holds both CSV files ({counts['csv']}) and images ({counts['images']});"
            " say which are meant with input.format: csv or images"
        )
    if counts.get("csv") or counts.get("images"):
        return "csv" if counts.get("csv") else "images"
    raise InputError(
        f"{path_list}: none of its {counts['other']} files is named like a CSV or an image, and it"
        " is no finished dataset; say what they are with input.format: csv or images"
    )


def _escape_existing_path(path: str) -> str:
    """Escape the glob characters of a path if a local file or folder with this name exists.

    All other paths, such as globs and URLs of remote files, are returned unchanged.
    """
    if not _GLOB_CHARACTERS.search(path):
        return path
    try:
        exists = parse_local_path(path).exists()
    except StorageError:
        return path
    return _GLOB_CHARACTERS.sub(r"\\\g<0>", path) if exists else path
