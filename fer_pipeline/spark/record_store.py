"""Storage on disk of all records of a preprocessing run, deduplicated and sorted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline.data.deduplication import RecordColumns, mark_duplicates
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.data.split_assignment import DeduplicatedRecords
from fer_pipeline.spark.read_records import Batches, SourceReader
from fer_pipeline.spark.record_columns import RECORD_SCHEMA, RecordOptions, build_record_tables
from fer_pipeline.spark.session import set_arrow_batch_size
from fer_pipeline.spark.shuffle import (
    COLUMNS_DDL,
    PARTITION_KEY,
    SHUFFLE_DDL,
    find_partition_keys,
    pack_for_shuffle,
    pack_records_without_images,
    sort_records,
    unpack_records,
)
from fer_pipeline.spark.steps import error_context

DEDUPLICATED_SCHEMA = RECORD_SCHEMA.append(pa.field("can_be_sampled", pa.bool_()))
"""The columns of a record after deduplication: `outcome` includes the reasons for dropped copies,
and `can_be_sampled` is true if the record may be moved from training to validation or test."""

_PACKS_PER_BATCH = 16


@dataclass(frozen=True)
class DeduplicatedPartition:
    """The records of a partition after deduplication, in the order of their sampling keys.

    Dropped copies are not removed but marked in the column `outcome`.

    Attributes:
        columns: The columns of DEDUPLICATED_SCHEMA, one row for each record.
        images: Images of the m records that have an image, in the order of the records, uint8 of
            shape (m, size, size); empty if only the columns were read.
    """

    columns: pa.Table
    images: Pixels

    def to_records(self) -> DeduplicatedRecords:
        """Return the columns that are needed to assign the records to splits."""
        names = ("key", "label", "split", "outcome", "can_be_sampled")
        return DeduplicatedRecords(**{name: self.columns.column(name).to_numpy() for name in names})


@dataclass
class RecordStore:
    """All deduplicated records, stored on disk because they are read several times.

    Pixels pass between Spark's JVM and its Python workers only where they are needed: after they
    were read, and before they are written. All other passes read the columns alone.

    Attributes:
        packs: The records before deduplication, in packs: rows that contain many records each, with
            the columns `records` and `images` of `shuffle.SHUFFLE_DDL`.
        columns: The columns of the records after deduplication, in packs without pixels.
        deduplicate: Whether superfluous copies of an image are marked as dropped, see
            `deduplication.mark_duplicates`.
        size: Height and width of the images, in pixels.
    """

    packs: DataFrame
    columns: DataFrame
    deduplicate: bool
    size: int
    _spark: SparkSession = field(repr=False)

    @classmethod
    def from_reader(
        cls,
        spark: SparkSession,
        reader: SourceReader,
        options: RecordOptions,
        partition_count: int,
        *,
        deduplicate: bool,
    ) -> RecordStore:
        """Create a store for the records of input files, without reading the files yet.

        The files are read lazily, when a function is first applied to the records.

        Args:
            spark: The session.
            reader: Reader of the input files.
            options: Rules for labels, image size, seed and further settings.
            partition_count: Number of partitions, each of which is processed by one task.
            deduplicate: Whether to mark superfluous copies of an image as dropped.
        """
        # The functions below are sent to the workers with all variables that they use. The reader
        # cannot be sent because it contains a DataFrame.
        read, size = reader.read, options.size
        keys = find_partition_keys(partition_count)

        def read_and_pack(batches: Batches) -> Batches:
            """Label, hash and resize records, and pack many records into each row."""
            tables = build_record_tables(read(batches), options)
            return pack_for_shuffle(tables, keys, size)

        def mark_and_pack(batches: Batches) -> Batches:
            """Mark the duplicates of one partition, and pack its records, without images."""
            return pack_records_without_images(
                _mark_duplicates_in_partition(batches, size, deduplicate=deduplicate).columns
            )

        packs = (
            reader.batches.mapInArrow(read_and_pack, SHUFFLE_DDL)
            .repartition(partition_count, PARTITION_KEY)
            .drop(PARTITION_KEY)
            .persist(StorageLevel.DISK_ONLY)
        )
        set_arrow_batch_size(spark, _PACKS_PER_BATCH)
        columns = packs.select("records").mapInArrow(mark_and_pack, COLUMNS_DDL)
        return cls(packs, columns.persist(StorageLevel.DISK_ONLY), deduplicate, size, spark)

    def close(self) -> None:
        """Delete the stored records from the disk."""
        # After an interrupt the JVM may already have ended; it deletes its files on exit.
        with contextlib.suppress(Py4JError, OSError):
            self.columns.unpersist()
            self.packs.unpersist()

    def map_partitions(
        self, function: Callable[[DeduplicatedPartition], pa.Table], ddl: str
    ) -> DataFrame:
        """Apply a function, lazily, to each partition; the images are not read.

        Partitions without records are skipped.

        Args:
            function: Function that maps a partition, whose `images` are empty, to a table.
            ddl: Schema of the table, in Spark's DDL format.

        Returns:
            The rows of all tables.
        """
        size = self.size

        def read_partition(batches: Batches) -> DeduplicatedPartition:
            """Unpack the records of one partition, whose duplicates are already marked."""
            return DeduplicatedPartition(*unpack_records(batches, size, DEDUPLICATED_SCHEMA))

        return self._map_packed_partitions(self.columns, read_partition, function, ddl)

    def map_partitions_with_images(
        self, function: Callable[[DeduplicatedPartition], pa.Table], ddl: str
    ) -> DataFrame:
        """Apply a function, lazily, to each partition, including the images of its records.

        Partitions without records are skipped.

        Args:
            function: Function that maps a partition to a table.
            ddl: Schema of the table, in Spark's DDL format.

        Returns:
            The rows of all tables.
        """
        size, deduplicate = self.size, self.deduplicate

        def read_partition(batches: Batches) -> DeduplicatedPartition:
            """Unpack the records and images of one partition, and mark the duplicates."""
            # The marks are not stored together with the pixels: for this, Spark would have to send
            # all pixels to a worker and back. Marking the duplicates twice is cheaper.
            return _mark_duplicates_in_partition(batches, size, deduplicate=deduplicate)

        return self._map_packed_partitions(self.packs, read_partition, function, ddl)

    def _map_packed_partitions(
        self,
        packs: DataFrame,
        read_partition: Callable[[Batches], DeduplicatedPartition],
        function: Callable[[DeduplicatedPartition], pa.Table],
        ddl: str,
    ) -> DataFrame:
        """Apply a function, lazily, to each partition; partitions without records are skipped.

        The Arrow batch size of the Spark session is also set.

        Args:
            packs: Rows that contain many records each.
            read_partition: Function that unpacks the rows of a partition.
            function: Function that maps the unpacked partition to a table.
            ddl: Schema of the table, in Spark's DDL format.

        Returns:
            The rows of all tables.
        """

        def apply_to_partition(batches: Batches) -> Batches:
            """Unpack one partition and apply the function to it, unless it has no records."""
            partition = read_partition(batches)
            if len(partition.columns):
                yield from function(partition).combine_chunks().to_batches()

        set_arrow_batch_size(self._spark, _PACKS_PER_BATCH)
        return packs.mapInArrow(apply_to_partition, ddl)


def _mark_duplicates_in_partition(
    batches: Batches, size: int, *, deduplicate: bool
) -> DeduplicatedPartition:
    """Unpack and sort the records of a partition, and mark the duplicates among them.

    A column `can_be_sampled` is added. It tells whether a record may be moved from training to
    validation or test. Copies of a test image, for example, may not be moved.

    Args:
        batches: Rows that contain many records each.
        size: Height and width of the images, in pixels.
        deduplicate: Whether to mark superfluous copies of an image as dropped, in the column
            `outcome`. If false, this column is not changed.
    """
    with error_context("marking the duplicates of a partition"):
        records, images = sort_records(*unpack_records(batches, size, RECORD_SCHEMA))
        hashes: Sequence[bytes] = records.column("image_hash").fill_null(bytes(16)).to_pylist()
        columns = RecordColumns(
            content=np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2),
            label=records.column("label").to_numpy(),
            split=records.column("split").to_numpy(),
            outcome=records.column("outcome").to_numpy(),
            # The records are sorted by key and location, so the first copy comes first.
            order=np.arange(len(records)),
        )
        outcome, can_be_sampled = mark_duplicates(columns, deduplicate=deduplicate)
        position = records.schema.get_field_index("outcome")
        records = records.set_column(position, "outcome", pa.array(outcome))
        records = records.append_column("can_be_sampled", pa.array(can_be_sampled))
        return DeduplicatedPartition(records, images)
