"""Scoring of images in Spark's Python workers, for CSV files, image files and datasets."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import ARROW_TYPES, build_arrow_schema
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_notes import add_constant_notes, count_notes
from fer_pipeline.data.image_preparation import prepare_images, resize
from fer_pipeline.data.manifest import ImageInfo
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.data.record_batch import ParsedRecords, Pixels
from fer_pipeline.data.split_keys import hash_images
from fer_pipeline.errors import DatasetError
from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.io.input_reading import make_listed_name, open_input
from fer_pipeline.io.threads import map_in_threads
from fer_pipeline.spark.listed_files import TASKS_PER_CORE
from fer_pipeline.spark.read_plan import make_part_table, plan_tasks
from fer_pipeline.spark.read_records import Batches, RecordReader, SourceReader, SourceRecords
from fer_pipeline.spark.score_writer import (
    WRITTEN_DDL,
    ImageBatch,
    ScoreCounts,
    ScoreWriter,
    ScoringOptions,
)
from fer_pipeline.spark.steps import error_context

_IMAGES_PER_BATCH = 512


@dataclass(frozen=True)
class ImageSource:
    """A source of images to score.

    Attributes:
        batches: Content of the source: CSV lines, image files, or rows of a dataset.
        read: Function that converts Arrow batches of the content to images, in a Spark worker.
    """

    batches: DataFrame
    read: Callable[[Batches], Iterator[ImageBatch]]


@dataclass(frozen=True)
class ScoringTotals:
    """Totals of the written scores.

    Attributes:
        files: Description of each written file, with the keys `path`, `rows` and `bytes`.
        counts: Numbers of images and faces.
        problems: Why a file cannot be read, or not to its end, by its name; a sample of many.
    """

    files: list[dict[str, Any]]
    counts: ScoreCounts
    problems: dict[str, str]

    def add(self, addition: ScoringTotals) -> ScoringTotals:
        """Return the totals of these scores and of further ones."""
        counts = ScoreCounts()
        counts.add(self.counts.to_json())
        counts.add(addition.counts.to_json())
        return ScoringTotals(self.files + addition.files, counts, self.problems | addition.problems)


def create_file_source(
    reader: SourceReader, offsets: BlockOffsets, size: int, enhancement: Enhancement
) -> ImageSource:
    """Create a source of images to score from CSV files or image files.

    Args:
        reader: Reader of the files.
        offsets: Number of the first record of each block, the part of a file that one Spark task
            reads.
        size: Height and width of the images that the model expects, in pixels.
        enhancement: Enhancement of the images that the model expects.
    """
    read = partial(
        _decode_images, read=reader.read, offsets=offsets, size=size, enhancement=enhancement
    )
    return ImageSource(reader.batches, read)


def _decode_images(
    batches: Batches,
    read: RecordReader,
    offsets: BlockOffsets,
    size: int,
    enhancement: Enhancement,
) -> Iterator[ImageBatch]:
    """Read images from CSV files or image files, and prepare them for the model.

    Args:
        batches: Arrow batches of CSV lines or image files.
        read: Function that converts the Arrow batches to groups of records.
        offsets: Number of the first record of each block, the part of a file that one Spark task
            reads.
        size: Height and width of the prepared images, in pixels.
        enhancement: Enhancement of the images before resizing.

    Yields:
        One batch of prepared images for each group of records.
    """
    for group in read(batches):
        parts = [build_image_batch(records, offsets, size, enhancement) for records in group]
        yield ImageBatch(
            origin=pa.concat_tables([part.origin for part in parts]),
            pixels=np.concatenate([part.pixels for part in parts]),
        )


def build_image_batch(
    records: SourceRecords, offsets: BlockOffsets, size: int, enhancement: Enhancement
) -> ImageBatch:
    """Prepare the images of records for the model, and describe their origins and errors.

    Args:
        records: Records of input files, with images of any size.
        offsets: Number of the first record of each block, the part of a file that one Spark task
            reads. It is needed to compute the record numbers.
        size: Height and width of the prepared images, in pixels.
        enhancement: Enhancement of the images before resizing.
    """
    parsed = records.parsed
    outcomes = parsed.errors.outcomes
    has_image = outcomes == Outcome.KEPT
    hashes = hash_images(parsed.images, has_image)
    image_count = len(parsed)
    pixels = prepare_images(parsed.images, has_image, size, enhancement)
    reasons = [Outcome(code).reason for code in outcomes.tolist()]
    details = parsed.errors.details | add_constant_notes(parsed.notes, pixels, has_image)
    record_numbers = offsets.compute_record_numbers(
        records.sources, records.blocks, records.positions
    )
    origin = pa.table(
        {
            "source": records.sources,
            "record": record_numbers,
            "image_hash": [content and content.hex() for content in hashes],
            "variant": ["original"] * image_count,
            "replica": np.zeros(image_count, np.int32),
            **{
                name: pa.nulls(image_count, ARROW_TYPES[kind]) for name, kind in schema.CLIP.items()
            },
            **_build_face_columns(parsed),
            "reason": pa.array([reason and str(reason) for reason in reasons], pa.string()),
            "detail": pa.array([details.get(row) for row in range(image_count)], pa.string()),
        }
    )
    return ImageBatch(origin, pixels)


def _build_face_columns(parsed: ParsedRecords) -> dict[str, pa.Array]:
    """Return the columns that describe the faces of records; null for those without a face."""
    types = build_arrow_schema(schema.FACE)
    if not parsed.faces:
        return {name: pa.nulls(len(parsed), types.field(name).type) for name in types.names}
    missing = [None] * len(FaceRow._fields)
    rows = [parsed.faces.get(row, missing) for row in range(len(parsed))]
    columns: dict[str, Sequence[Any]] = dict(
        zip(FaceRow._fields, zip(*rows, strict=True), strict=True)
    )
    columns[schema.FACE_IMAGE] = [
        parsed.images[row].tobytes() if row in parsed.faces else None for row in range(len(parsed))
    ]
    return {name: pa.array(columns[name], types.field(name).type) for name in types.names}


def create_dataset_source(spark: SparkSession, dataset: StoredDataset, size: int) -> ImageSource:
    """Create a source of images to score from all rows of a prepared dataset.

    Mirrored and rotated variants and oversampled rows are included. Each row group of a file is
    read by one task.

    Args:
        spark: The session.
        dataset: The dataset.
        size: Height and width of the images that the model expects, in pixels.
    """
    files = [make_listed_name(dataset.folder / file.path) for file in dataset.manifest.files]
    group_counts = map_in_threads(_count_row_groups, files)
    parts = [
        FilePart(name, -1, start=group, end=group + 1)
        for name, group_count in zip(files, group_counts, strict=True)
        for group in range(group_count)
    ]
    task_count = min(len(parts), TASKS_PER_CORE * spark.sparkContext.defaultParallelism)
    weights = np.full(len(parts), task_count)
    batches, iterate_parts = plan_tasks(spark, make_part_table(parts), weights, len(parts))
    stored = dataset.manifest.image

    def read(batches: Batches) -> Iterator[ImageBatch]:
        """Read the images of a task."""
        for part in iterate_parts(batches):
            yield from _read_stored_images(part, stored, size)

    return ImageSource(batches, read)


def _count_row_groups(name: str) -> int:
    """Return the number of row groups of a Parquet file."""
    with open_input(name) as file:
        return int(pq.ParquetFile(file).metadata.num_row_groups)


def _read_stored_images(part: FilePart, stored: ImageInfo, size: int) -> Iterator[ImageBatch]:
    """Read row groups of a prepared dataset as images of the size that the model expects.

    Args:
        part: Parquet file, and its row groups from `start` to `end`.
        stored: Size, data type and normalisation of the stored images.
        size: Height and width of the images that the model expects, in pixels.
    """
    columns = ["image", *schema.ORIGIN]
    with open_input(part.name) as file, error_context(f"reading {part.name}"):
        groups = range(part.start, cast(int, part.end))
        for batch in pq.ParquetFile(file).iter_batches(_IMAGES_PER_BATCH, groups, columns):
            pixels = _restore_pixels(batch.column("image"), stored)
            if stored.size != size:
                pixels = np.stack([resize(image, size) for image in pixels])
            origin = pa.table({name: batch.column(name) for name in schema.ORIGIN})
            missing = {**schema.CLIP, **schema.FACE, "reason": "string", "detail": "string"}
            for name, kind in missing.items():
                origin = origin.append_column(name, pa.nulls(len(batch), ARROW_TYPES[kind]))
            yield ImageBatch(origin, pixels)


def _restore_pixels(column: pa.Array, stored: ImageInfo) -> Pixels:
    """Convert a dataset's column of images to pixels, uint8 of shape (n, size, size).

    Raises:
        DatasetError: The values do not match the size, type or normalisation in the manifest.
    """
    try:
        if stored.dtype == "uint8":
            pixels = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
        else:
            normalized = column.flatten().to_numpy(zero_copy_only=False)
            pixels = stored.normalization.restore_pixels(normalized)
        return pixels.reshape(len(column), stored.size, stored.size)
    except ValueError as error:
        raise DatasetError(f"an image does not match the manifest: {error}") from error


def score_source(
    source: ImageSource, options: ScoringOptions, output_folder: Path
) -> ScoringTotals:
    """Score all images of a source; each Spark task writes its scores to one Parquet file.

    Args:
        source: The images.
        options: The model, the emotions, and the threshold for uncertain predictions.
        output_folder: Folder to write the files to.

    Returns:
        Descriptions of the written files, the number of images by predicted emotion, the number of
        unreadable images by reason, and the files that cannot be read.
    """
    # The function below is sent to the workers with all variables that it uses. The source cannot
    # be sent because it contains a DataFrame.
    read = source.read

    def write_scores(batches: Batches) -> Batches:
        """Score the images of one task, and yield a description of the written file."""
        with ScoreWriter(output_folder, options) as writer:
            for images in read(batches):
                writer.score_and_write(images)
        yield from writer.describe_file()

    written = sorted(source.batches.mapInArrow(write_scores, WRITTEN_DDL).collect())
    counts = ScoreCounts()
    for row in written:
        counts.add(row.counts)
    counts.notes = count_notes(counts.notes.items())
    return ScoringTotals(
        [{"path": row.path, "rows": row.rows, "bytes": row.bytes} for row in written],
        counts,
        dict(ChainMap(*(row.problems for row in written))),
    )
