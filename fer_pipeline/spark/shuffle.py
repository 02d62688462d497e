"""Records on their way from the tasks that read them to the tasks that write them.

Spark moves few large values far cheaper than many small ones: 100,000 images as rows of a DataFrame
cost the JVM about 10 s of processor time in a shuffle, a sort and a cache, packed they cost 1 s. So
records travel in packs: all of a batch that go to one task, what is known of them in one value and
their pixels in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from fer_pipeline.spark.read_records import RECORD_INFO_SCHEMA, Batches

PACK = "slot int, facts binary, images binary"
"""The columns of a pack: where it goes, an Arrow stream of `records.FACTS`, and pixels."""

_PACK_SCHEMA = pa.schema([("slot", pa.int32()), ("facts", pa.binary()), ("images", pa.binary())])
_ROWS_PER_PACK = 64
_FEWEST_ROWS, _MOST_BYTES = 2048, 32 << 20


def partition_keys(spark: SparkSession, partitions: int) -> list[int]:
    """A number for each partition that Spark's hash partitioning sends there and nowhere else."""
    # 32 numbers for each partition miss one of a thousand with a probability of e**-32.
    candidates = spark.range(32 * partitions + 64).selectExpr(
        "int(id) AS slot", f"pmod(hash(int(id)), {partitions}) AS partition"
    )
    found = candidates.groupBy("partition").agg({"slot": "min"}).collect()
    return [row[1] for row in sorted(found)]


def pack_for_shuffle(
    read: Callable[[Batches], Batches], chosen: Sequence[int], size: int
) -> Callable[[Batches], Batches]:
    """The function that reads records and packs them.

    Args:
        read: From batches of a source to records.
        chosen: What `slots` gives.
        size: The side of the images, in pixels.
    """
    numbers = np.array(chosen, np.int32)
    enough = min(max(_FEWEST_ROWS, _ROWS_PER_PACK * len(chosen)), _MOST_BYTES // size**2)

    def packed(batches: Batches) -> Batches:
        waiting: list[pa.RecordBatch] = []
        for records in read(batches):
            waiting.append(records)
            if sum(len(batch) for batch in waiting) >= enough:
                yield _pack(waiting, numbers)
                waiting = []
        if waiting:
            yield _pack(waiting, numbers)

    return packed


def _pack(batches: list[pa.RecordBatch], numbers: npt.NDArray[np.int32]) -> pa.RecordBatch:
    records = pa.Table.from_batches(batches).combine_chunks()
    # The key is uniform, so its remainder shares the records out evenly; copies have one key.
    to = records.column("key").to_numpy() % len(numbers)
    order = np.argsort(to, kind="stable")
    records = records.take(pa.array(order))
    ends = np.cumsum(np.bincount(to, minlength=len(numbers)))
    facts, images, where = [], [], []
    pixels = records.column("image").combine_chunks()
    start = 0
    for index, end in enumerate(ends):
        if end > start:
            part = records.slice(start, end - start).select(RECORD_INFO_SCHEMA.names)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, part.schema) as stream:
                stream.write_table(part)
            facts.append(sink.getvalue().to_pybytes())
            images.append(b"".join(pixels[start:end].drop_null().to_pylist()))
            where.append(numbers[index])
        start = end
    return pa.RecordBatch.from_arrays(
        [pa.array(where, pa.int32()), pa.array(facts, pa.binary()), pa.array(images, pa.binary())],
        schema=_PACK_SCHEMA,
    )


def unpack_partition(
    batches: Iterable[pa.RecordBatch], size: int
) -> tuple[pa.Table, npt.NDArray[np.uint8]]:
    """All records of a partition, in the order of their keys, whatever order they came in.

    Args:
        batches: Packs, with or without the pixels.
        size: The side of the images, in pixels.

    Returns:
        The facts; and the images, uint8 of shape (n, size, size), n the number of records that have
        one, in the records' order: empty where the packs came without.
    """
    facts: list[pa.Table] = []
    images: list[npt.NDArray[np.uint8]] = [np.empty((0, size * size), np.uint8)]
    for batch in batches:
        for row in range(len(batch)):
            facts.append(pa.ipc.open_stream(batch.column("facts")[row].as_buffer()).read_all())
            if "images" in batch.schema.names:
                pixels = np.frombuffer(batch.column("images")[row].as_buffer(), np.uint8)
                images.append(pixels.reshape(-1, size * size))
    table = pa.concat_tables([RECORD_INFO_SCHEMA.empty_table(), *facts]).combine_chunks()
    order = np.asarray(
        pc.sort_indices(
            table, [(name, "ascending") for name in ("key", "source", "block", "position")]
        )
    )
    pixels = np.concatenate(images)
    if len(pixels):
        has_image = table.column("image_hash").is_valid().to_numpy()
        position = np.cumsum(has_image) - 1
        pixels = pixels[position[order[has_image[order]]]]
    return table.take(pa.array(order)), pixels.reshape(-1, size, size)
