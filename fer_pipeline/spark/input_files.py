"""The input files given by the user, CSV files or images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pyspark.sql import SparkSession

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.fer_csv import RequiredColumns
from fer_pipeline.data.image_decoding import ImageReader
from fer_pipeline.errors import InputError
from fer_pipeline.io.input_reading import is_hadoop_url
from fer_pipeline.spark.hadoop_files import HadoopFiles
from fer_pipeline.spark.listed_files import ListedFiles, SetAside
from fer_pipeline.spark.read_records import SourceReader


class InputFiles(Protocol):
    """The input files that the paths given by the user refer to.

    Attributes:
        paths: Paths as given by the user.
        kind: Kind of the files, `csv` or `images`.
        file_count: Number of files.
        byte_count: Total size of the files, in bytes.
        compressed_byte_count: Total size of the compressed CSV files, in bytes.
    """

    paths: list[str]
    kind: str
    file_count: int
    byte_count: int
    compressed_byte_count: int

    def create_reader(self, required: RequiredColumns, read_image: ImageReader) -> SourceReader:
        """Create a reader of the records.

        Args:
            required: Columns that a CSV file must have.
            read_image: Function that reads an image file.

        Raises:
            InputError: A CSV file that several tasks read lacks a required column. Other CSV files
                are checked later, by the tasks that read them.
        """

    def compute_block_offsets(self, *, always: bool = False) -> tuple[BlockOffsets, int | None]:
        """Return the offset of each block, and the number of records in all files.

        A block is the part of a file that one Spark task reads. Its offset is the number of records
        before it in the file. Counting the records of CSV files takes a pass over the files.

        Args:
            always: Whether to count the records even if no file has several blocks.

        Returns:
            The offsets, and the number of records. If the records are not counted, all offsets are
            0, and the number is None.
        """


def open_input_files(
    spark: SparkSession,
    paths: Sequence[str],
    kind: str = "auto",
    set_aside: SetAside | None = None,
) -> InputFiles:
    """List the input files that the paths given by the user refer to.

    Args:
        spark: The session.
        paths: Files, globs, folders and archives, as paths or URLs.
        kind: `csv`, `images`, or `auto` to determine the kind from the names of the files.
        set_aside: Function that decides which files are left to others; it is not called for those
            that Hadoop reads, nor if the kind is `csv`.

    Raises:
        InputError: There are no files, `kind` is `auto` and the kind cannot be determined, or only
            some of the paths are on a filesystem that only Hadoop knows.
    """
    needs_hadoop = [is_hadoop_url(path) for path in paths]
    if not any(needs_hadoop):
        return ListedFiles(spark, paths, kind, set_aside)
    if not all(needs_hadoop):
        raise InputError(
            f"{', '.join(paths)}: some of these are read by Hadoop, the others are not; give"
            " either kind to a job of its own"
        )
    return HadoopFiles(spark, paths, kind)
