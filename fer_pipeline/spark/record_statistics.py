"""Statistics of all records: numbers of records, keys at ranks, and moments of the pixels.

Each statistic is computed by a plain function for every partition; Spark then adds up the results.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 - the usual name among users of Spark

from fer_pipeline.data import split_keys
from fer_pipeline.data.outcomes import Outcome, Split
from fer_pipeline.data.split_assignment import ClassThresholds, assign_splits
from fer_pipeline.spark.file_kinds import CSV_NAME
from fer_pipeline.spark.record_store import DeduplicatedPartition, RecordStore

_GROUP_COLUMNS = ("source", "block", "outcome", "split", "label", "detail")
_TALLY_DDL = (
    "source string, block bigint, outcome int, split int, label int,"
    " detail string, n bigint, code int, low bigint, high bigint"
)


def count_records(store: RecordStore, *, by_folder: bool) -> list[dict[str, Any]]:
    """Count all records by source, block, outcome, split, label and detail.

    A source is an input file. A block is the part of a file that one Spark task reads. The outcome
    says whether a record is kept, dropped or quarantined, and why. The detail is the note on a
    kept image, see `data.image_notes`, or the reason why a CSV file cannot be read; otherwise null.

    Args:
        store: All records, with marked duplicates.
        by_folder: Whether to count all images of a folder as one source. Otherwise each image file
            would be a source of its own.

    Returns:
        One dictionary for each combination that occurs, with these additional keys:

        * `n`: number of records;
        * `code`: largest numeric label of these records in the source;
        * `low` and `high`: sums of the lower and of the upper 32 bits of their fingerprints,
          because the sum of all 64 bits could overflow. The fingerprint of a record is a 64-bit
          hash of its image, label and usage.
    """

    def count_partition(partition: DeduplicatedPartition) -> pa.Table:
        """Count the records of one partition."""
        return _count_partition_records(partition, by_folder=by_folder)

    totals = (
        store.map_partitions(count_partition, _TALLY_DDL)
        .groupBy(*_GROUP_COLUMNS)
        .agg(
            F.sum("n").alias("n"),
            F.max("code").alias("code"),
            F.sum("low").alias("low"),
            F.sum("high").alias("high"),
        )
    )
    tallies: list[dict[str, Any]] = [row.asDict() for row in totals.collect()]
    if any(re.search(CSV_NAME, tally["source"]) for tally in tallies):
        # The others are folders, or links, in which there may be no CSV file.
        for tally in tallies:
            is_unreadable = tally["outcome"] == Outcome.UNREADABLE_FILE
            if is_unreadable and not re.search(CSV_NAME, tally["source"]):
                tally["detail"] = None
    return tallies


def _count_partition_records(partition: DeduplicatedPartition, *, by_folder: bool) -> pa.Table:
    """Count the records of one partition, see `count_records`.

    Args:
        partition: The records.
        by_folder: Whether to replace the source of each record, an image file, by its folder.

    Returns:
        A table with one row for each combination that occurs, and with the columns of `_TALLY_DDL`,
        which `count_records` explains.
    """
    columns = partition.columns
    sources = columns.column("source")
    outcomes = columns.column("outcome")
    has_detail = pc.equal(outcomes, int(Outcome.KEPT))
    if by_folder:
        sources = pa.array([name.rpartition("/")[0] for name in sources.to_pylist()])
    else:
        has_detail = pc.or_(has_detail, pc.equal(outcomes, int(Outcome.UNREADABLE_FILE)))
    fingerprints = columns.column("fingerprint").to_numpy().view(np.uint64)
    table = pa.table(
        {
            "source": sources,
            "block": columns.column("block"),
            "outcome": outcomes.cast(pa.int32()),
            "split": columns.column("split").cast(pa.int32()),
            "label": columns.column("label"),
            "detail": pc.if_else(has_detail, columns.column("detail"), None),
            "n": np.ones(len(columns), np.int64),
            "code": columns.column("code"),
            "low": (fingerprints & np.uint64(2**32 - 1)).astype(np.int64),
            "high": (fingerprints >> np.uint64(32)).astype(np.int64),
        }
    )
    aggregations = [("n", "sum"), ("code", "max"), ("low", "sum"), ("high", "sum")]
    totals = table.group_by(list(_GROUP_COLUMNS)).aggregate(aggregations)
    return totals.select([*_GROUP_COLUMNS, "n_sum", "code_max", "low_sum", "high_sum"])


def find_keys_at_ranks(
    store: RecordStore, ranks: Mapping[int, Sequence[int]]
) -> dict[tuple[int, int], int]:
    """Find the sampling keys below which given numbers of records of each class lie.

    The sampling key of a record is a pseudo-random number that is computed from the content of its
    image and the seed. Only records that may be moved from training to validation or test are
    counted.

    Args:
        store: All records, with marked duplicates.
        ranks: Numbers of records, which are the 0-based ranks of the keys, by class index.

    Returns:
        A threshold for each class index and number n: n records of the class have lower keys, or
        fewer if copies of an image share the key. For n = 0 it is the smallest 64-bit integer. If
        the class has at most n records, it is the largest 64-bit integer.
    """
    keys = {(label, 0): -split_keys.LAST_KEY - 1 for label in ranks}
    positive_ranks = {
        (label, rank) for label, class_ranks in ranks.items() for rank in class_ranks if rank
    }
    if not positive_ranks:
        return keys
    # The first pass over the records counts the keys in each bucket, a range of keys. The second
    # pass collects only the keys of the buckets that contain a rank.
    records = store.map_partitions(_select_keys, "label int, bucket int, key bigint")
    histograms: dict[int, dict[int, int]] = defaultdict(dict)
    for row in records.groupBy("label", "bucket").count().collect():
        histograms[row.label][row.bucket] = row["count"]
    is_in_bucket = F.lit(False)
    for label, rank in positive_ranks:
        position = split_keys.find_bucket_of_rank(histograms[label], rank)
        if position:
            is_in_bucket |= (F.col("label") == label) & (F.col("bucket") == position[0])
    candidates = _collect_keys(records.where(is_in_bucket))
    for label, rank in positive_ranks:
        keys[label, rank] = split_keys.find_key_at_rank(histograms[label], candidates[label], rank)
    return keys


def _select_keys(partition: DeduplicatedPartition) -> pa.Table:
    """Return the sampling keys of the records that may be moved to validation or test.

    Returns:
        A table with the columns `label` (class index), `key` (sampling key, a pseudo-random
        number) and `bucket` (the upper 12 bits of the key).
    """
    records = partition.to_records()
    key = records.key[records.can_be_sampled]
    bucket = (key >> (64 - split_keys.BUCKET_BITS)).astype(np.int32)
    label = records.label[records.can_be_sampled]
    return pa.table({"label": label, "bucket": bucket, "key": key})


def _collect_keys(records: DataFrame) -> dict[int, dict[int, list[int]]]:
    """Collect the sampling keys of records in the driver.

    Args:
        records: Records with the columns `label`, `bucket` (number of a range of keys) and `key`.

    Returns:
        Lists of keys by class index and bucket.
    """
    keys: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in records.collect():
        keys[row.label][row.bucket].append(row.key)
    return keys


def compute_pixel_moments(
    store: RecordStore, thresholds: Mapping[int, ClassThresholds]
) -> tuple[int, int, int]:
    """Compute the number, the sum and the sum of squares of the pixels of all training images.

    Args:
        store: All records; they must have been read with `RecordOptions.compute_moments`.
        thresholds: Thresholds that divide the records of each class into splits, by class index.

    Returns:
        The number of pixels, the sum of the pixels, and the sum of the squared pixels.
    """
    pixels_per_image = store.size**2

    def select_moments(partition: DeduplicatedPartition) -> pa.Table:
        """Return the columns `pixel_sum` and `pixel_squares` of the training records."""
        split, _ = assign_splits(partition.to_records(), thresholds)
        in_training = pa.array(split == Split.TRAIN.code)
        return partition.columns.select(["pixel_sum", "pixel_squares"]).filter(in_training)

    moments = store.map_partitions(select_moments, "total bigint, squares bigint")
    row = moments.agg(F.count("*"), F.sum("total"), F.sum("squares")).collect()[0]
    return row[0] * pixels_per_image, row[1] or 0, row[2] or 0
