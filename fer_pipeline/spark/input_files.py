"""From the paths that a user names to records: CSV files or folders of images."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as all of Spark's users call it

from fer_pipeline.data import fer_csv
from fer_pipeline.data.fer_csv import CsvLayout
from fer_pipeline.data.ingest_counts import block_offsets
from fer_pipeline.errors import InputError, StorageError
from fer_pipeline.io.paths import parse_local_path
from fer_pipeline.spark.read_records import (
    Batches,
    ParseOptions,
    csv_counts,
    csv_records,
    image_records,
    source_name,
)
from fer_pipeline.spark.session import SMALLEST_SPLIT, max_partition_bytes, set_arrow_batch_size

log = logging.getLogger(__name__)

_CSV_NAME = r"(?i)\.csv(\.gz|\.bz2)?$"
_PACKED_NAME = r"(?i)\.(gz|bz2)$"
_CSV_GLOB = "*.{[cC][sS][vV],[cC][sS][vV].[gG][zZ],[cC][sS][vV].[bB][zZ]2}"
_GLOB = re.compile(r"[\\{}\[\]*?]")
_IMAGE_NAME = r"(?i)\.(jpe?g|png|bmp|pgm|ppm|pnm|tiff?|webp|jp2|gif)$"

# About 4 MB of text, which stay in the processor's cache; a batch of images is one of whole files,
# and those may be photos of many megabytes.
_LINES_PER_BATCH = 512
_IMAGES_PER_BATCH = 64
_PEEK_LINES = 20

_URL = "_metadata.file_path AS url"


class InputFiles:
    """The files behind the paths that a user named.

    Attributes:
        kind: `csv` or `images`.
        files: How many there are.
        bytes: The size of all of them.
        compressed_bytes: The size of those of them that are compressed CSV files.
    """

    def __init__(self, spark: SparkSession, paths: Sequence[str], kind: str = "auto") -> None:
        """Lists the files.

        Args:
            spark: The session.
            paths: Files, globs or folders (with all their subfolders), in any form that Spark
                reads. As everywhere in Spark, names that begin with a dot or an underscore are
                hidden.
            kind: `csv`, `images` or `auto`, which goes by the names of the files.

        Raises:
            InputError: There is no file, or it is not clear what the files are.
        """
        self._spark, self._paths = spark, list(paths)
        name = F.col("path")
        by_name = F.when(name.rlike(_CSV_NAME), "csv").when(name.rlike(_IMAGE_NAME), "images")
        self._listed = self._read("binaryFile")
        files = self._listed.selectExpr("path", "length", _URL)
        self._files = files.withColumn("kind", by_name.otherwise("other"))
        packed = F.when(name.rlike(_PACKED_NAME), F.col("length")).otherwise(0)
        totals = self._files.groupBy("kind").agg(
            F.count("*").alias("n"), F.sum("length").alias("b"), F.sum(packed).alias("packed")
        )
        found = {row.kind: row for row in totals.collect()}
        self._empty = self._empty_files(sum(row.n for row in found.values()))
        counts = Counter({name: row.n for name, row in found.items()})
        counts.update(_kind_of(source_name(url)) for url in self._empty)
        self.kind = kind if kind != "auto" else _kind(", ".join(paths), counts)
        # In a folder of CSV files other files are no input; in a folder of images every file is,
        # or one with a strange name would be lost in silence.
        self._only_named = self.kind == "csv" and "csv" in counts
        if self._only_named:
            others = sum(counts.values()) - counts["csv"]
            if others:
                log.warning("%d files that are not named .csv are not read", others)
            found = {name: row for name, row in found.items() if name == "csv"}
            self._files = self._files.where("kind = 'csv'")
        self.files = counts["csv"] if self._only_named else sum(counts.values())
        self.bytes = sum(row.b for row in found.values())
        self.compressed_bytes = sum(row.packed for row in found.values())

    def reader(self, reading: ParseOptions) -> tuple[DataFrame, Callable[[Batches], Batches]]:
        """What makes records of the files.

        Returns:
            What the files hold, and the function for `mapInArrow` that reads `records.RECORDS`.
        """
        if self.kind == "images":
            files = self._listed.selectExpr("content", _URL)
            if self._empty:
                empty = [(bytearray(), url) for url in self._empty]
                files = files.union(
                    self._spark.createDataFrame(empty, "content binary, url string")
                )
            set_arrow_batch_size(self._spark, _IMAGES_PER_BATCH)
            return files, image_records(reading)
        layouts = self._layouts(reading)
        return self._lines(), csv_records(reading, layouts)

    def offsets(self, *, count: bool = False) -> tuple[dict[tuple[str, int], int], int | None]:
        """Where blocks of files begin.

        Args:
            count: Whether to count the records even where no file has more than one block.

        Returns:
            The number of the first record of each block, where it is not 0; and how many records
            there are, where they had to be counted for that.
        """
        if self.kind == "images":
            return {}, self.files
        if not count and self._files.where(self._shared()).isEmpty():
            return {}, None
        counted = self._lines().mapInArrow(csv_counts, "source string, block bigint, n bigint")
        totals = counted.groupBy("source", "block").sum("n").collect()
        # The header is no record.
        counts = [(source, block, n - (block == 0)) for source, block, n in totals]
        return block_offsets(counts), sum(n for _, _, n in counts)

    def _lines(self) -> DataFrame:
        set_arrow_batch_size(self._spark, _LINES_PER_BATCH)
        # Bytes, not text: a line need not be valid UTF-8 to be a row, good or bad.
        return self._read("text").selectExpr(
            "cast(value AS binary)", _URL, "_metadata.file_block_start AS block"
        )

    def _empty_files(self, listed: int) -> list[str]:
        """Files without a byte, which Spark passes over when it reads: they are rows of ours."""
        every = self._listed.inputFiles()
        if len(every) == listed:
            return []
        known = {source_name(row.url) for row in self._files.select("url").collect()}
        return sorted(url for url in every if source_name(url) not in known)

    def _read(self, source: str) -> DataFrame:
        reader = self._spark.read.format(source).option("recursiveFileLookup", "true")
        if source == "text" and self._only_named:
            reader = reader.option("pathGlobFilter", _CSV_GLOB)
        return reader.load([_literal(path) for path in self._paths])

    def _shared(self) -> str:
        """Which files Spark may cut into blocks, so that several tasks read them."""
        block = min(SMALLEST_SPLIT, max_partition_bytes(self._spark))
        return f"length > {block} AND NOT lower(url) LIKE '%.gz'"

    def _layouts(self, reading: ParseOptions) -> dict[str, CsvLayout]:
        """The layouts of the files that several tasks may share: one of them sees the header."""
        urls = [row.url for row in self._files.where(self._shared()).select("url").collect()]

        def layout(url: str) -> CsvLayout:
            name = source_name(url)
            lines = self._spark.read.text(escape_glob(name)).select(F.col("value").cast("binary"))
            head = [bytes(row.value) for row in lines.head(_PEEK_LINES)]
            rows = [line for line in head if not fer_csv.is_blank(line)] or [b""]
            header = fer_csv.read_header(
                rows[0], name, labelled=reading.labelled, usage=reading.usage
            )
            return fer_csv.with_pixel_count(header, rows[1:])

        with ThreadPoolExecutor(max_workers=8) as pool:
            return dict(zip(urls, pool.map(layout, urls), strict=True))


def _kind_of(name: str) -> str:
    if re.search(_CSV_NAME, name):
        return "csv"
    return "images" if re.search(_IMAGE_NAME, name) else "other"


def escape_glob(path: str) -> str:
    """A path as a pattern that matches nothing else."""
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", path)


def _kind(named: str, files: dict[str, int]) -> str:
    if not files:
        raise InputError(f"{named}: there is no file in it; name a CSV, or a folder of images")
    if files.get("csv") and files.get("images"):
        raise InputError(
            f"{named}: holds both CSV files ({files['csv']}) and images ({files['images']});"
            " say which are meant with input.format: csv or images"
        )
    if files.get("csv") or files.get("images"):
        return "csv" if files.get("csv") else "images"
    raise InputError(
        f"{named}: none of its {files['other']} files is named like a CSV or an image, and it is no"
        " finished dataset; say what they are with input.format: csv or images"
    )


def _literal(path: str) -> str:
    """A path that is there under this very name is no glob, whatever letters it has."""
    if not _GLOB.search(path):
        return path
    try:
        there = parse_local_path(path).exists()
    except StorageError:
        return path
    return _GLOB.sub(r"\\\g<0>", path) if there else path
