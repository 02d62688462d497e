"""Scoring images in the Python workers: one way to the model for every kind of source."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline import images, schema, storage
from fer_pipeline.arrow import arrow_schema
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.manifest import Manifest
from fer_pipeline.publication import SCORES
from fer_pipeline.selection import KEPT, OUTCOMES
from fer_pipeline.spark.records import Batches, record_numbers
from fer_pipeline.spark.session import rows_per_batch, task_number
from fer_pipeline.spark.sources import literally
from fer_pipeline.storage import parquet_file

Pixels = npt.NDArray[np.uint8]
Crops = Iterator[tuple[pa.Table, Pixels]]
"""Batches of what is to be scored: where each image comes from (`schema.ORIGIN`, and `reason` and
`detail` where there is no image), and the images that there are, uint8 of shape (n, size, size)."""

UNCERTAIN = "uncertain"
"""The emotion of an image of which the model is not sure enough."""

_RESULT = (
    "path string, rows bigint, bytes bigint,"
    " emotions map<string,bigint>, reasons map<string,bigint>"
)
_IMAGES_PER_BATCH = 512


@dataclass(frozen=True)
class Scored:
    """What was written.

    Attributes:
        files: Path, rows and bytes of each file.
        emotions: How many images were found to show each emotion.
        reasons: How many could not be scored, by reason.
    """

    files: list[dict[str, Any]]
    emotions: Counter[str]
    reasons: Counter[str]


def crops_of_records(
    read: Callable[[Batches], Batches], offsets: Mapping[tuple[str, int], int], size: int
) -> Callable[[Batches], Crops]:
    """Crops from CSV files or image files.

    Args:
        read: From batches of a source to records.
        offsets: The number in its file of a block's first record, where it is not 0.
        size: The side of the records' images, in pixels.
    """

    def crops(batches: Batches) -> Crops:
        for batch in read(batches):
            outcome = batch.column("outcome").to_pylist()
            hashes = batch.column("image_hash").to_pylist()
            origin = pa.table(
                {
                    "source": batch.column("source"),
                    "record": record_numbers(batch, offsets),
                    "image_hash": [content and content.hex() for content in hashes],
                    "variant": ["original"] * len(batch),
                    "replica": np.zeros(len(batch), np.int32),
                    "reason": [None if code == KEPT else str(OUTCOMES[code]) for code in outcome],
                    "detail": batch.column("detail"),
                }
            )
            found = batch.column("image").drop_null().to_pylist()
            yield origin, np.frombuffer(b"".join(found), np.uint8).reshape(-1, size, size)

    return crops


def dataset_rows(spark: SparkSession, folder: Path, made: Manifest) -> DataFrame:
    """The rows of a prepared dataset: the files that its manifest names and no others."""
    rows_per_batch(spark, _IMAGES_PER_BATCH)
    paths = [literally(storage.spark_url(folder / file.path)) for file in made.files]
    return spark.read.parquet(*paths).select("image", *schema.ORIGIN)


def crops_of_dataset(made: Manifest, size: int) -> Callable[[Batches], Crops]:
    """Crops from a prepared dataset, brought to another size where the model wants one.

    Args:
        made: The dataset's manifest.
        size: The side that the model wants, in pixels.
    """
    side = made.image.size

    def crops(batches: Batches) -> Crops:
        for batch in batches:
            image = batch.column("image")
            try:
                if made.image.dtype == "uint8":
                    pixels = np.frombuffer(b"".join(image.to_pylist()), np.uint8)
                else:
                    values = image.flatten().to_numpy(zero_copy_only=False)
                    pixels = made.image.normalization.restore(values)
                pixels = pixels.reshape(len(batch), side, side)
            except ValueError as error:
                raise DatasetError(f"an image is not what the manifest says: {error}") from error
            if side != size:
                pixels = np.stack([images.resize(one, size) for one in pixels])
            origin = pa.table({name: batch.column(name) for name in schema.ORIGIN})
            nothing = pa.nulls(len(batch), pa.string())
            yield origin.append_column("reason", nothing).append_column("detail", nothing), pixels

    return crops


def score(
    source: DataFrame,
    crops: Callable[[Batches], Crops],
    load: Callable[[], Callable[[Pixels], npt.NDArray[np.float32]]],
    classes: Sequence[str],
    folder: Path,
    min_confidence: float = 0.0,
) -> Scored:
    """Scores a source and writes a file for each task.

    Args:
        source: What the tasks read.
        crops: What they make of it.
        load: Gives the model, in a worker: from pixels to probabilities of shape (n, classes).
        classes: The emotions in the order of the model's outputs.
        folder: Where the files go.
        min_confidence: An image whose highest probability is lower shows an uncertain emotion.
    """
    columns = arrow_schema(schema.score_columns(classes))

    def run(batches: Batches) -> Batches:
        emotions, reasons, rows = Counter[str](), Counter[str](), 0
        path = folder / SCORES.unique_name(task_number())
        with contextlib.ExitStack() as open_files:
            writer = None
            for origin, pixels in crops(batches):
                if writer is None:
                    sink = open_files.enter_context(parquet_file(path))
                    writer = pq.ParquetWriter(sink, columns, compression="zstd")
                    open_files.enter_context(writer)
                scored = _scored(origin, pixels, load, classes, columns, min_confidence)
                writer.write_table(scored)
                rows += len(scored)
                emotions.update(scored.column("emotion").drop_null().to_pylist())
                reasons.update(scored.column("reason").drop_null().to_pylist())
        if rows:
            said = {
                "path": path.name,
                "rows": rows,
                "bytes": path.stat().st_size,
                "emotions": list(emotions.items()),
                "reasons": list(reasons.items()),
            }
            yield pa.RecordBatch.from_pylist([said], _RESULT_SCHEMA)

    written = sorted(source.mapInArrow(run, _RESULT).collect())
    return Scored(
        [{"path": row.path, "rows": row.rows, "bytes": row.bytes} for row in written],
        sum((Counter(row.emotions) for row in written), Counter()),
        sum((Counter(row.reasons) for row in written), Counter()),
    )


_COUNTS = pa.map_(pa.string(), pa.int64())
_RESULT_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("emotions", _COUNTS),
        ("reasons", _COUNTS),
    ]
)


def _scored(
    origin: pa.Table,
    pixels: Pixels,
    load: Callable[[], Callable[[Pixels], npt.NDArray[np.float32]]],
    classes: Sequence[str],
    columns: pa.Schema,
    min_confidence: float,
) -> pa.Table:
    """One row for each image or what stands in its place: nothing that was found goes missing."""
    count = len(origin)
    there = origin.column("reason").is_null().to_numpy()
    # A batch without an image needs no model: loading one takes seconds.
    made = load()(pixels) if len(pixels) else np.empty((0, len(classes)), np.float32)
    if not np.isfinite(made).all():
        raise RunError("the model gives probabilities that are no numbers; train it again")
    probabilities = np.zeros((count, len(classes)), np.float32)
    probabilities[there] = made
    best, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    # In the precision in which it is stored, so that a reader's comparison finds the same.
    best[confidence < np.float32(min_confidence)] = len(classes)
    missing = pa.array(~there)
    none = pa.scalar(None, pa.float32())

    def known(values: npt.NDArray[np.float32]) -> pa.Array:
        return pa.compute.if_else(missing, none, pa.array(values))

    emotion = pa.array([*classes, UNCERTAIN]).take(pa.array(np.where(there, best, 0)))
    table = origin.append_column(
        "emotion", pa.compute.if_else(missing, pa.scalar(None, pa.string()), emotion)
    )
    table = table.append_column("confidence", known(confidence))
    for index, name in enumerate(classes):
        table = table.append_column(f"p_{name}", known(probabilities[:, index]))
    return table.select(columns.names).cast(columns)
