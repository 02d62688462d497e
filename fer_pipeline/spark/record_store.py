"""The passes over gathered packs: each answers one question about all records.

A pass runs a plain function on each partition's records and lets Spark add up what it returns.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as all of Spark's users call it

from fer_pipeline.data import split_assignment, split_keys
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.split_assignment import SPLITS, ClassThresholds, RecordColumns
from fer_pipeline.spark.input_files import InputFiles
from fer_pipeline.spark.read_records import Batches, ParseOptions
from fer_pipeline.spark.session import set_arrow_batch_size
from fer_pipeline.spark.shuffle import PACK, pack_for_shuffle, partition_keys, unpack_partition

_PACKS_PER_BATCH = 64


@dataclass(frozen=True)
class DecidedPartition:
    """A partition's records and what was decided about copies.

    Attributes:
        facts: The columns of `records.FACTS`.
        images: uint8 of shape (n, size, size), one for each record that has one.
        candidates: The facts as arrays.
        outcome: Why a record is not kept, see `selection.settle`.
        drawable: Whether it may be drawn into validation or test.
    """

    facts: pa.Table
    images: npt.NDArray[np.uint8]
    candidates: RecordColumns
    outcome: npt.NDArray[np.int8]
    drawable: npt.NDArray[np.bool_]


def open_partition(
    packs: Iterable[pa.RecordBatch], size: int, *, deduplicate: bool
) -> DecidedPartition:
    """Unpacks a partition and decides about its copies.

    Args:
        packs: Batches of packs.
        size: The side of the images, in pixels.
        deduplicate: See `selection.settle`.
    """
    facts, images = unpack_partition(packs, size)
    hashes = facts.column("image_hash").fill_null(bytes(16)).to_pylist()
    candidates = RecordColumns(
        content=np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2),
        # The facts are sorted by key, then by place: their position is the order among copies.
        order=np.arange(len(facts)),
        **{name: facts.column(name).to_numpy() for name in ("key", "label", "split", "outcome")},
    )
    outcome, drawable = split_assignment.mark_duplicates(candidates, deduplicate=deduplicate)
    return DecidedPartition(facts, images, candidates, outcome, drawable)


@dataclass
class RecordStore:
    """All records, copies together, held on disk: several passes read them.

    Attributes:
        packs: The columns of `packing.PACK`.
        size: The side of the images, in pixels.
        deduplicate: See `selection.settle`.
    """

    packs: DataFrame
    size: int
    deduplicate: bool
    _spark: SparkSession = field(repr=False)

    @classmethod
    def read(
        cls,
        spark: SparkSession,
        sources: InputFiles,
        reading: ParseOptions,
        partitions: int,
        deduplicate: bool,
    ) -> RecordStore:
        """Reads the sources; the work is done by the first pass.

        Args:
            spark: The session.
            sources: The files.
            reading: How they are read.
            partitions: How many tasks share the records.
            deduplicate: See `selection.settle`.
        """
        found, read = sources.reader(reading)
        packs = found.mapInArrow(
            pack_for_shuffle(read, partition_keys(spark, partitions), reading.size), PACK
        )
        gathered = packs.repartition(partitions, "slot").persist(StorageLevel.DISK_ONLY)
        return cls(gathered, reading.size, deduplicate, spark)

    def close(self) -> None:
        """Lets go of the disk."""
        # After an interrupt the JVM may be gone, and the disk's files with it.
        with contextlib.suppress(Py4JError, OSError):
            self.packs.unpersist()

    def each(
        self, function: Callable[[DecidedPartition], pa.Table], schema: str, *, images: bool = False
    ) -> DataFrame:
        """A pass: what a function makes of each partition.

        Args:
            function: From a partition to a table.
            schema: Of the table, in Spark's terms.
            images: Whether the function needs the pixels.
        """
        size, deduplicate = self.size, self.deduplicate

        def run(batches: Batches) -> Batches:
            partition = open_partition(batches, size, deduplicate=deduplicate)
            if len(partition.facts):
                yield from function(partition).combine_chunks().to_batches()

        set_arrow_batch_size(self._spark, _PACKS_PER_BATCH)
        packs = self.packs if images else self.packs.select("facts")
        return packs.mapInArrow(run, schema)


_TALLY = "source string, block bigint, outcome int, split int, label int"


def count_records(gathered: RecordStore, by_folder: bool) -> list[Mapping[str, int | str]]:
    """Counts all records.

    Args:
        gathered: The records.
        by_folder: Whether images of one folder count as one source, or the answer would be as long
            as the data.

    Returns:
        For each source, block, outcome, split and label that there is: `n`, how many records; the
        largest `code`; and `low` and `high`, the sums of the halves of their fingerprints.
    """

    def count(partition: DecidedPartition) -> pa.Table:
        facts = partition.facts
        source = facts.column("source").to_pylist()
        if by_folder:
            source = [name.rpartition("/")[0] for name in source]
        prints = facts.column("fingerprint").to_numpy().view(np.uint64)
        table = pa.table(
            {
                "source": source,
                "block": facts.column("block"),
                "outcome": partition.outcome.astype(np.int32),
                "split": facts.column("split").cast(pa.int32()),
                "label": facts.column("label"),
                "n": np.ones(len(source), np.int64),
                "code": facts.column("code"),
                "low": (prints & np.uint64(2**32 - 1)).astype(np.int64),
                "high": (prints >> np.uint64(32)).astype(np.int64),
            }
        )
        keys = ["source", "block", "outcome", "split", "label"]
        sums = [("n", "sum"), ("code", "max"), ("low", "sum"), ("high", "sum")]
        grouped = table.group_by(keys).aggregate(sums)
        return grouped.select([*keys, "n_sum", "code_max", "low_sum", "high_sum"])

    schema = f"{_TALLY}, n bigint, code int, low bigint, high bigint"
    total = (
        gathered.each(count, schema)
        .groupBy("source", "block", "outcome", "split", "label")
        .agg(
            *(
                f(c).alias(c)
                for f, c in ((F.sum, "n"), (F.max, "code"), (F.sum, "low"), (F.sum, "high"))
            )
        )
    )
    return [row.asDict() for row in total.collect()]


def keys_at_ranks(
    gathered: RecordStore, ranks: Mapping[int, Sequence[int]]
) -> dict[tuple[int, int], int]:
    """The key at each rank among a class's drawable records.

    Args:
        gathered: The records.
        ranks: The ranks that are wanted, by class; no key lies below that of rank 0.

    Returns:
        The key by class and rank.
    """
    found = {(label, 0): -split_keys.LAST_KEY - 1 for label in ranks}
    wanted = {(label, rank) for label, of_label in ranks.items() for rank in of_label if rank}
    if not wanted:
        return found
    shift = 64 - split_keys.BUCKET_BITS

    def drawable(partition: DecidedPartition) -> pa.Table:
        here = partition.drawable
        key = partition.candidates.key[here]
        label = partition.candidates.label[here]
        return pa.table({"label": label, "bucket": (key >> shift).astype(np.int32), "key": key})

    records = gathered.each(drawable, "label int, bucket int, key bigint")
    histograms: dict[int, dict[int, int]] = defaultdict(dict)
    for row in records.groupBy("label", "bucket").count().collect():
        histograms[row.label][row.bucket] = row["count"]
    inside = F.lit(False)
    for label, rank in wanted:
        place = split_keys.find_rank(histograms[label], rank)
        if place:
            inside |= (F.col("label") == label) & (F.col("bucket") == place[0])
    keys: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in records.where(inside).collect():
        keys[row.label][row.bucket].append(row.key)
    for label, rank in wanted:
        found[label, rank] = split_keys.key_at_rank(histograms[label], keys[label], rank)
    return found


def pixel_moments(
    gathered: RecordStore, cuts: Mapping[int, ClassThresholds]
) -> tuple[int, int, int]:
    """The number, the sum and the sum of squares of the pixels of all training images."""
    area = gathered.size**2

    def add(partition: DecidedPartition) -> pa.Table:
        split, _ = split_assignment.assign_splits(
            partition.candidates, partition.outcome, partition.drawable, cuts
        )
        train = pa.array(split == SPLITS.index(Split.TRAIN))
        facts = partition.facts.filter(train)
        return pa.table(
            {"total": facts.column("pixel_sum"), "squares": facts.column("pixel_squares")}
        )

    sums = gathered.each(add, "total bigint, squares bigint")
    row = sums.agg(F.count("*"), F.sum("total"), F.sum("squares")).collect()[0]
    return row[0] * area, row[1] or 0, row[2] or 0
