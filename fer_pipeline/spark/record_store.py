"""All records of a preprocessing run, held on disk: copies together, decided on, in order."""

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
from fer_pipeline.spark.input_files import SourceReader
from fer_pipeline.spark.read_records import Batches
from fer_pipeline.spark.record_columns import RECORD_SCHEMA, RecordOptions, build_record_tables
from fer_pipeline.spark.session import set_arrow_batch_size
from fer_pipeline.spark.shuffle import (
    PACK_DDL,
    PARTITION_KEY,
    SHUFFLE_DDL,
    find_partition_keys,
    pack_for_shuffle,
    pack_in_order,
    sort_records,
    unpack,
)
from fer_pipeline.spark.steps import error_context

DEDUPLICATED_SCHEMA = RECORD_SCHEMA.append(pa.field("can_be_sampled", pa.bool_()))
"""The columns of a record that was decided on: `outcome` also names dropped copies, and
`can_be_sampled` says whether it may be moved from training into validation or test."""

_PACKS_PER_BATCH = 16


@dataclass(frozen=True)
class DeduplicatedPartition:
    """The records of a partition, in the order of their keys.

    Attributes:
        columns: The columns of DEDUPLICATED_SCHEMA.
        images: uint8 of shape (m, size, size), one for each record that has an image, in order;
            none if they were not requested.
    """

    columns: pa.Table
    images: Pixels

    def to_records(self) -> DeduplicatedRecords:
        """Return the columns that decide on a record's split, as arrays."""
        names = ("key", "label", "split", "outcome", "can_be_sampled")
        return DeduplicatedRecords(**{name: self.columns.column(name).to_numpy() for name in names})


@dataclass
class RecordStore:
    """All records, each decided on once and held on disk: several passes read them.

    Attributes:
        packs: The columns of `shuffle.PACK_DDL`.
        size: Side of the images, in pixels.
    """

    packs: DataFrame
    size: int
    _spark: SparkSession = field(repr=False)

    @classmethod
    def read(
        cls,
        spark: SparkSession,
        reader: SourceReader,
        options: RecordOptions,
        partitions: int,
        *,
        deduplicate: bool,
    ) -> RecordStore:
        """Plan the reading of a source; the first pass performs it.

        Args:
            spark: The session.
            reader: Reader of the source's files.
            options: Processing of the records.
            partitions: Number of tasks that share the records.
            deduplicate: Whether to drop copies, see `deduplication.mark_duplicates`.
        """
        # The tasks take along what their functions name: not the reader, which has a DataFrame.
        read, size = reader.read, options.size
        keys = find_partition_keys(spark, partitions)

        def read_and_pack(batches: Batches) -> Batches:
            tables = build_record_tables(read(batches), options)
            return pack_for_shuffle(tables, keys, size)

        def decide(batches: Batches) -> Batches:
            return _deduplicate_partition(batches, size, deduplicate=deduplicate)

        packs = (
            reader.batches.mapInArrow(read_and_pack, SHUFFLE_DDL)
            .repartition(partitions, PARTITION_KEY)
            .mapInArrow(decide, PACK_DDL)
            .persist(StorageLevel.DISK_ONLY)
        )
        return cls(packs, size, spark)

    def close(self) -> None:
        """Free the disk."""
        # After an interrupt the JVM may have ended, and its files on the disk are deleted with it.
        with contextlib.suppress(Py4JError, OSError):
            self.packs.unpersist()

    def map_partitions(
        self,
        function: Callable[[DeduplicatedPartition], pa.Table],
        ddl: str,
        *,
        with_pixels: bool = False,
    ) -> DataFrame:
        """Apply a function to the records of each partition, in one pass.

        Args:
            function: Function from a partition to a table.
            ddl: Columns of the table, with Spark's types.
            with_pixels: Whether the function needs the pixels.
        """
        size = self.size

        def apply(batches: Batches) -> Batches:
            partition = DeduplicatedPartition(*unpack(batches, size, DEDUPLICATED_SCHEMA))
            if len(partition.columns):
                yield from function(partition).combine_chunks().to_batches()

        set_arrow_batch_size(self._spark, _PACKS_PER_BATCH)
        packs = self.packs if with_pixels else self.packs.select("records")
        return packs.mapInArrow(apply, ddl)


def _deduplicate_partition(batches: Batches, size: int, *, deduplicate: bool) -> Batches:
    """Sort the records of a partition, decide about copies, and pack them again."""
    with error_context("deciding about the copies of a partition"):
        records, images = sort_records(*unpack(batches, size, RECORD_SCHEMA))
        hashes: Sequence[bytes] = records.column("image_hash").fill_null(bytes(16)).to_pylist()
        columns = RecordColumns(
            content=np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2),
            label=records.column("label").to_numpy(),
            split=records.column("split").to_numpy(),
            outcome=records.column("outcome").to_numpy(),
            # The records are sorted by key, then by place: their position orders the copies.
            order=np.arange(len(records)),
        )
        outcome, can_be_sampled = mark_duplicates(columns, deduplicate=deduplicate)
        position = records.schema.get_field_index("outcome")
        decided = records.set_column(position, "outcome", pa.array(outcome))
        decided = decided.append_column("can_be_sampled", pa.array(can_be_sampled))
        yield from pack_in_order(decided, images)
