"""Packing of records for Spark's shuffle and cache.

Spark processes a few large values much faster than many small ones. With one row per image, 100,000
images take about 10 s of the JVM's processor time in a shuffle, a sort and a cache; packed, they
take 1 s. A pack is a row that contains many records with the same destination: one binary value
with their columns, and one with their pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.spark.read_records import Batches
from fer_pipeline.spark.record_columns import RecordTable

PARTITION_KEY = "partition_key"
"""The column that determines the partition of a pack, see `find_partition_keys`."""

SHUFFLE_DDL = f"{PARTITION_KEY} int, records binary, images binary"
"""The columns of a pack in the shuffle: partition, Arrow stream of the records, and pixels."""

COLUMNS_DDL = "records binary"
"""The columns of a pack without pixels: Arrow stream of the records."""

_SHUFFLE_SCHEMA = pa.schema(
    [(PARTITION_KEY, pa.int32()), ("records", pa.binary()), ("images", pa.binary())]
)
_COLUMNS_SCHEMA = pa.schema([("records", pa.binary())])

_RECORDS_PER_PACK = 64
_MIN_RECORDS_TO_PACK = 2048
_MAX_BYTES_TO_PACK = 32 << 20
_RECORDS_PER_PACK_WITHOUT_IMAGES = 8192


def find_partition_keys(partition_count: int) -> list[int]:
    """Find, for each partition, a number that Spark's hash partitioning assigns to this partition.

    Spark SQL does not support custom partitioners: `repartition(n, column)` puts a row into the
    partition `pmod(hash(column), n)`. To put a row into partition i, write element i of the
    returned list into the column.

    Args:
        partition_count: Number of partitions.

    Returns:
        The smallest such number for each partition, in the order of the partitions.
    """
    # With 32 candidates per partition, a given partition gets no candidate with probability e**-32.
    candidates = np.arange(32 * partition_count + 64)
    partitions, keys = np.unique(hash_integers(candidates) % partition_count, return_index=True)
    if len(partitions) != partition_count:
        raise RuntimeError(f"no key for some of {partition_count} partitions")
    return keys.tolist()


def hash_integers(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return the hash that Spark's function `hash` gives to a column of type int.

    This takes the place of a query to Spark at the start of each job.

    Args:
        numbers: Numbers from 0 to 2**31 - 1, of shape (n,).

    Returns:
        MurmurHash3 (x86, 32 bits, seed 42; https://github.com/aappleby/smhasher) of each number as
        4 bytes, int32 of shape (n,).
    """
    mixed = numbers.astype(np.uint32) * np.uint32(0xCC9E2D51)
    mixed = _rotate_left(mixed, 15) * np.uint32(0x1B873593)
    digest = _rotate_left(mixed ^ np.uint32(42), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    digest ^= np.uint32(4)  # the number of bytes
    digest = (digest ^ (digest >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    digest = (digest ^ (digest >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (digest ^ (digest >> np.uint32(16))).view(np.int32)


def _rotate_left(words: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.uint32]:
    """Rotate the bits of each word to the left."""
    return (words << np.uint32(count)) | (words >> np.uint32(32 - count))


def pack_for_shuffle(
    tables: Iterable[RecordTable], partition_keys: Sequence[int], size: int
) -> Batches:
    """Pack records into rows for Spark's shuffle; each row contains many records of one partition.

    Copies of an image get into the same partition.

    Args:
        tables: Records in any order.
        partition_keys: Partition key of each partition, from `find_partition_keys`.
        size: Height and width of the images, in pixels.

    Yields:
        Batches of rows with the columns of SHUFFLE_DDL: the partition key, the bytes of the
        records, and the bytes of their images.
    """
    keys = np.array(partition_keys, np.int32)
    min_record_count = max(_MIN_RECORDS_TO_PACK, _RECORDS_PER_PACK * len(keys))
    min_record_count = min(min_record_count, _MAX_BYTES_TO_PACK // size**2)
    pending: list[RecordTable] = []
    pending_count = 0
    for table in tables:
        pending.append(table)
        pending_count += table.columns.num_rows
        if pending_count >= min_record_count:
            yield _pack_by_partition(pending, keys)
            pending, pending_count = [], 0
    if pending:
        yield _pack_by_partition(pending, keys)


def _pack_by_partition(
    tables: Sequence[RecordTable], keys: npt.NDArray[np.int32]
) -> pa.RecordBatch:
    """Pack records into rows, one for each partition that has records.

    The index of a record's partition is its column `key` modulo the number of partitions.

    Args:
        tables: Records in any order.
        keys: Partition key of each partition, from `find_partition_keys`; int32 of shape
            (partitions,).

    Returns:
        Rows with the columns of SHUFFLE_DDL: the partition key, the bytes of the records, and the
        bytes of their images.
    """
    records = pa.Table.from_batches([table.columns for table in tables]).combine_chunks()
    images = np.concatenate([table.images for table in tables])
    # The sampling keys are uniformly distributed, so the partitions have similar sizes. Copies of
    # an image have the same key and therefore the same partition.
    partition = records.column("key").to_numpy() % len(keys)
    order = np.argsort(partition, kind="stable")
    images = _reorder_images(images, records, order)
    records = records.take(pa.array(order))
    ends = np.cumsum(np.bincount(partition, minlength=len(keys)))
    image_ends = _count_images_before(records, ends)
    columns: tuple[list[int], list[bytes], list[bytes]] = ([], [], [])
    start = image_start = 0
    for key, end, image_end in zip(keys.tolist(), ends.tolist(), image_ends, strict=True):
        if end > start:
            columns[0].append(key)
            columns[1].append(_serialize_records(records.slice(start, end - start)))
            columns[2].append(images[image_start:image_end].tobytes())
        start, image_start = end, image_end
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, _SHUFFLE_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_SHUFFLE_SCHEMA)


def pack_records_without_images(records: pa.Table) -> Batches:
    """Pack records that have no image column into rows of up to 8192 records, in the same order.

    Yields:
        Batches of one row, which contains the records as an Arrow stream in the column `records`.
    """
    for start in range(0, len(records), _RECORDS_PER_PACK_WITHOUT_IMAGES):
        pack = _serialize_records(records.slice(start, _RECORDS_PER_PACK_WITHOUT_IMAGES))
        yield pa.RecordBatch.from_arrays([pa.array([pack], pa.binary())], schema=_COLUMNS_SCHEMA)


def unpack_records(
    batches: Iterable[pa.RecordBatch], size: int, schema: pa.Schema
) -> tuple[pa.Table, Pixels]:
    """Unpack the records of a partition from rows that contain many records each.

    Args:
        batches: Rows with the column `records` (Arrow stream of many records) and, optionally, the
            column `images` (pixels of these records).
        size: Height and width of the images, in pixels.
        schema: Arrow schema of the records.

    Returns:
        records: All records, in the order of `batches`.
        images: Images of the m records that have an image, uint8 of shape (m, size, size); empty if
            `batches` has no column `images`.
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
    """Sort records by sampling key, then by their location in the input files.

    The sampling key is a pseudo-random number that is computed from the image and the seed. Copies
    of an image have the same key and become adjacent.

    Args:
        records: Columns of the records.
        images: Images of the m records that have an image, uint8 of shape (m, size, size); empty
            if only the columns are needed.

    Returns:
        The sorted records, and the images in the order of the sorted records.
    """
    columns = ("key", "source", "block", "position")
    order = np.asarray(pc.sort_indices(records, [(name, "ascending") for name in columns]))
    if len(images):
        images = _reorder_images(images, records, order)
    return records.take(pa.array(order)), images


def _reorder_images(images: Pixels, records: pa.Table, order: npt.NDArray[np.int64]) -> Pixels:
    """Reorder images in the same way as their records; not all records have an image.

    Args:
        images: Images of the m records that have an image, uint8 of shape (m, size, size).
        records: Columns of the records in their old order.
        order: For each position in the new order, the old position of its record.
    """
    has_image = records.column("image_hash").is_valid().to_numpy()
    image_of_record = np.cumsum(has_image) - 1
    return images[image_of_record[order[has_image[order]]]]


def _count_images_before(records: pa.Table, ends: npt.NDArray[np.int64]) -> list[int]:
    """Count the images of the first n records, for several values of n.

    Not all records have an image.

    Args:
        records: Columns of the records.
        ends: The values of n, of shape (k,).

    Returns:
        The number of images for each of the k values.
    """
    has_image = records.column("image_hash").is_valid().to_numpy()
    cumulative_counts = np.concatenate([[0], np.cumsum(has_image)])
    return cumulative_counts[ends].tolist()


def _serialize_records(records: pa.Table) -> bytes:
    """Return records as bytes in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as stream:
        stream.write_table(records)
    return sink.getvalue().to_pybytes()
