"""Packs: records on their way from the tasks that read them to the tasks that write them.

Spark moves few large values far cheaper than many small ones: 100,000 images as rows of a DataFrame
cost the JVM about 10 s of processor time in a shuffle, a sort and a cache, packed they cost 1 s. So
records travel in packs: all records of a batch that go to one task, their columns in one value and
their pixels in another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.spark.read_records import Batches
from fer_pipeline.spark.record_columns import RecordTable

PARTITION_KEY = "partition_key"
"""The column of a pack that decides which task it goes to, see `find_partition_keys`."""

SHUFFLE_DDL = f"{PARTITION_KEY} int, records binary, images binary"
"""The columns of a pack in the shuffle: an Arrow stream of records, and their pixels."""

PACK_DDL = "records binary, images binary"
"""The columns of a pack that has reached its task."""

_SHUFFLE_SCHEMA = pa.schema(
    [(PARTITION_KEY, pa.int32()), ("records", pa.binary()), ("images", pa.binary())]
)
_PACK_SCHEMA = pa.schema([("records", pa.binary()), ("images", pa.binary())])

_RECORDS_PER_PACK = 64
_MIN_RECORDS_TO_PACK = 2048
_MAX_BYTES_TO_PACK = 32 << 20
_MAX_BYTES_PER_PACK = 1 << 20


def find_partition_keys(spark: SparkSession, partitions: int) -> list[int]:
    """Return, for each partition, a number that Spark's hash partitioning sends to it.

    `repartition(n, column)` puts a row into the partition `pmod(hash(column), n)`. Spark SQL has no
    partitioner of one's own, so this one is chosen by its results: records with the same remainder
    of their sampling key get the same number, and with it the same partition.
    """
    # 32 numbers for each partition miss one of a thousand with a probability of e**-32.
    candidates = spark.range(32 * partitions + 64).selectExpr(
        f"int(id) AS {PARTITION_KEY}", f"pmod(hash(int(id)), {partitions}) AS partition"
    )
    smallest = candidates.groupBy("partition").agg({PARTITION_KEY: "min"}).collect()
    return [row[1] for row in sorted(smallest)]


def pack_for_shuffle(
    tables: Iterable[RecordTable], partition_keys: Sequence[int], size: int
) -> Batches:
    """Pack records by the partition that they go to.

    Args:
        tables: Records in any order.
        partition_keys: The number that leads to each partition.
        size: Side of the images, in pixels.

    Yields:
        The columns of SHUFFLE_DDL.
    """
    keys = np.array(partition_keys, np.int32)
    by_count = max(_MIN_RECORDS_TO_PACK, _RECORDS_PER_PACK * len(keys))
    enough = min(by_count, _MAX_BYTES_TO_PACK // size**2)
    waiting: list[RecordTable] = []
    waiting_count = 0
    for table in tables:
        waiting.append(table)
        waiting_count += table.columns.num_rows
        if waiting_count >= enough:
            yield _pack_by_partition(waiting, keys)
            waiting, waiting_count = [], 0
    if waiting:
        yield _pack_by_partition(waiting, keys)


def _pack_by_partition(
    tables: Sequence[RecordTable], keys: npt.NDArray[np.int32]
) -> pa.RecordBatch:
    records = pa.Table.from_batches([table.columns for table in tables]).combine_chunks()
    images = np.concatenate([table.images for table in tables])
    # The key is uniform, so its remainder shares the records out evenly; copies have one key.
    partition = records.column("key").to_numpy() % len(keys)
    order = np.argsort(partition, kind="stable")
    images = _reorder_images(images, records, order)
    records = records.take(pa.array(order))
    ends = np.cumsum(np.bincount(partition, minlength=len(keys)))
    image_ends = _image_ends(records, ends)
    columns: tuple[list[int], list[bytes], list[bytes]] = ([], [], [])
    start = image_start = 0
    for key, end, image_end in zip(keys.tolist(), ends.tolist(), image_ends, strict=True):
        if end > start:
            columns[0].append(key)
            columns[1].append(_to_stream(records.slice(start, end - start)))
            columns[2].append(images[image_start:image_end].tobytes())
        start, image_start = end, image_end
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, _SHUFFLE_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_SHUFFLE_SCHEMA)


def pack_in_order(records: pa.Table, images: Pixels) -> Batches:
    """Pack the sorted records of a partition.

    Args:
        records: Columns of the records.
        images: uint8 of shape (m, size, size), one for each record that has an image.

    Yields:
        The columns of PACK_DDL, one pack a batch.
    """
    records = records.combine_chunks()
    per_pack = max(1, _MAX_BYTES_PER_PACK // max(1, images.shape[1] ** 2))
    ends = np.arange(per_pack, len(records) + per_pack, per_pack).clip(max=len(records))
    start = image_start = 0
    for end, image_end in zip(ends.tolist(), _image_ends(records, ends), strict=True):
        columns = [
            pa.array([_to_stream(records.slice(start, end - start))], pa.binary()),
            pa.array([images[image_start:image_end].tobytes()], pa.binary()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_PACK_SCHEMA)
        start, image_start = end, image_end


def unpack(
    batches: Iterable[pa.RecordBatch], size: int, schema: pa.Schema
) -> tuple[pa.Table, Pixels]:
    """Unpack the records of a partition, in the order of the packs.

    Args:
        batches: Packs, with or without the pixels.
        size: Side of the images, in pixels.
        schema: Columns of the records.

    Returns:
        The records; and the images, uint8 of shape (m, size, size), one for each record that has
        one, none if the packs came without.
    """
    records: list[pa.Table] = [schema.empty_table()]
    images: list[Pixels] = [np.empty((0, size, size), np.uint8)]
    for batch in batches:
        for stream in batch.column("records"):
            records.append(pa.ipc.open_stream(stream.as_buffer()).read_all())
        if "images" in batch.schema.names:
            for pixels in batch.column("images"):
                images.append(np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, size, size))
    return pa.concat_tables(records).combine_chunks(), np.concatenate(images)


def sort_records(records: pa.Table, images: Pixels) -> tuple[pa.Table, Pixels]:
    """Sort records by their keys, then by their places, whatever order they arrived in.

    Args:
        records: Columns of the records.
        images: uint8 of shape (m, size, size), one for each record that has an image.
    """
    columns = ("key", "source", "block", "position")
    order = np.asarray(pc.sort_indices(records, [(name, "ascending") for name in columns]))
    return records.take(pa.array(order)), _reorder_images(images, records, order)


def _reorder_images(images: Pixels, records: pa.Table, order: npt.NDArray[np.int64]) -> Pixels:
    """Return the images in another order of their records; some records have no image."""
    has_image = records.column("image_hash").is_valid().to_numpy()
    image_of_record = np.cumsum(has_image) - 1
    return images[image_of_record[order[has_image[order]]]]


def _image_ends(records: pa.Table, ends: npt.NDArray[np.int64]) -> list[int]:
    """Return the number of images before each end of a slice of the records."""
    has_image = records.column("image_hash").is_valid().to_numpy()
    before = np.concatenate([[0], np.cumsum(has_image)])
    return before[ends].tolist()


def _to_stream(records: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as stream:
        stream.write_table(records)
    return sink.getvalue().to_pybytes()
