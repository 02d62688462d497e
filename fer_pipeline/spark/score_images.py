"""Scoring of images in Spark's Python workers, for CSV files, image files and datasets."""

from __future__ import annotations

import contextlib
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_arrow_schema
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_notes import add_constant_notes, count_notes
from fer_pipeline.data.image_preparation import prepare_images, resize
from fer_pipeline.data.manifest import ImageInfo
from fer_pipeline.data.outcomes import Outcome, QuarantineReason
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.data.scores import UNCERTAIN
from fer_pipeline.data.split_keys import hash_images
from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.io.input_reading import make_listed_name, open_input
from fer_pipeline.io.output_kinds import SCORES
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.io.threads import map_in_threads
from fer_pipeline.spark.file_kinds import NAMED_FILES
from fer_pipeline.spark.listed_files import TASKS_PER_CORE
from fer_pipeline.spark.read_plan import make_part_table, plan_tasks
from fer_pipeline.spark.read_records import Batches, RecordReader, SourceReader, SourceRecords
from fer_pipeline.spark.session import get_task_index
from fer_pipeline.spark.steps import error_context

_IMAGES_PER_BATCH = 512

_COUNTS = pa.map_(pa.string(), pa.int64())
_WRITTEN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("emotions", _COUNTS),
        ("reasons", _COUNTS),
        ("problems", pa.map_(pa.string(), pa.string())),
        ("notes", _COUNTS),
    ]
)
_WRITTEN_DDL = (
    "path string, rows bigint, bytes bigint,"
    " emotions map<string,bigint>, reasons map<string,bigint>,"
    " problems map<string,string>, notes map<string,bigint>"
)

Predict = Callable[[Pixels], npt.NDArray[np.float32]]
"""A function that maps images, uint8 of shape (n, size, size), to probabilities, float32 of shape
(n, classes)."""


class ImageBatch(NamedTuple):
    """A batch of images to score.

    Attributes:
        origin: One row for each image with the columns of `schema.ORIGIN` (source file, record
            number, image hash, variant, replica) and the columns `reason` and `detail`. The last
            two describe the error of an unreadable image. For a readable image `reason` is null,
            and `detail` is a note, see `data.image_notes`, or null.
        pixels: Pixels of the m readable images, in order, uint8 of shape (m, size, size).
    """

    origin: pa.Table
    pixels: Pixels


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
        emotions: Number of images by predicted emotion.
        reasons: Number of images that could not be scored, by reason.
        problems: Why a file cannot be read, or not to its end, by its name; a sample of many.
        notes: Number of scored images by note, see `data.image_notes`.
    """

    files: list[dict[str, Any]]
    emotions: Counter[str]
    reasons: Counter[str]
    problems: dict[str, str]
    notes: Counter[str]


@dataclass(frozen=True)
class ScoringOptions:
    """The model and the options of scoring; sent to Spark's workers.

    Attributes:
        load: Function that loads the model in a worker and returns its prediction function.
        classes: Emotions in the order of the model's outputs.
        min_confidence: Threshold in [0, 1]. If the highest probability of an image is lower, its
            emotion is `UNCERTAIN`.
    """

    load: Callable[[], Predict]
    classes: Sequence[str]
    min_confidence: float = 0.0


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
        parts = [_build_image_batch(records, offsets, size, enhancement) for records in group]
        yield ImageBatch(
            origin=pa.concat_tables([part.origin for part in parts]),
            pixels=np.concatenate([part.pixels for part in parts]),
        )


def _build_image_batch(
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
            "reason": pa.array([reason and str(reason) for reason in reasons], pa.string()),
            "detail": pa.array([details.get(row) for row in range(image_count)], pa.string()),
        }
    )
    return ImageBatch(origin, pixels)


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
            nulls = pa.nulls(len(batch), pa.string())
            origin = origin.append_column("reason", nulls).append_column("detail", nulls)
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
        with _ScoreWriter(output_folder, options) as writer:
            for images in read(batches):
                writer.score_and_write(images)
        yield from writer.describe_file()

    written = sorted(source.batches.mapInArrow(write_scores, _WRITTEN_DDL).collect())
    return ScoringTotals(
        [{"path": row.path, "rows": row.rows, "bytes": row.bytes} for row in written],
        sum((Counter(row.emotions) for row in written), Counter()),
        sum((Counter(row.reasons) for row in written), Counter()),
        dict(ChainMap(*(row.problems for row in written))),
        count_notes(chain.from_iterable(row.notes.items() for row in written)),
    )


class _ScoreWriter(contextlib.AbstractContextManager["_ScoreWriter"]):
    """Scores the images of one Spark task and writes a file, unless there are no images."""

    def __init__(self, output_folder: Path, options: ScoringOptions) -> None:
        """Choose a unique file name; the file is created when the first batch is written.

        Args:
            output_folder: Folder to write the file to.
            options: The model, the emotions, and the threshold for uncertain predictions.
        """
        self._path = output_folder / SCORES.make_data_file_name(get_task_index())
        self._options = options
        self._columns = build_arrow_schema(schema.score_columns(options.classes))
        self._open_files = contextlib.ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._row_count = 0
        self._emotions = Counter[str]()
        self._reasons = Counter[str]()
        self._problems: dict[str, str] = {}
        self._notes = Counter[str]()

    def __exit__(self, *error: object) -> None:
        """Close the file, if it was created."""
        self._open_files.__exit__(*error)  # type: ignore[arg-type]

    def score_and_write(self, images: ImageBatch) -> None:
        """Score a batch of images and write the scores; the first call creates the file."""
        if self._writer is None:
            sink = self._open_files.enter_context(create_data_file(self._path))
            self._writer = self._open_files.enter_context(
                pq.ParquetWriter(sink, self._columns, compression="zstd")
            )
        with error_context(f"scoring images of {images.origin.column('source')[0]}"):
            scores = _score_batch(images, self._options).select(self._columns.names)
        self._writer.write_table(scores.cast(self._columns))
        self._row_count += len(scores)
        self._emotions.update(scores.column("emotion").drop_null().to_pylist())
        self._reasons.update(scores.column("reason").drop_null().to_pylist())
        if len(self._problems) <= NAMED_FILES:
            is_unreadable = pc.equal(scores.column("reason"), QuarantineReason.UNREADABLE)
            for file in scores.select(["source", "detail"]).filter(is_unreadable).to_pylist():
                self._problems[file["source"]] = file["detail"]
        notes = scores.column("detail").filter(scores.column("reason").is_null())
        self._notes.update(notes.drop_null().to_pylist())

    def describe_file(self) -> Batches:
        """Yield one row with the name, size and totals of the file, if it was written."""
        if self._row_count:
            row = {
                "path": self._path.name,
                "rows": self._row_count,
                "bytes": self._path.stat().st_size,
                "emotions": list(self._emotions.items()),
                "reasons": list(self._reasons.items()),
                "problems": list(self._problems.items()),
                "notes": list(self._notes.items()),
            }
            yield pa.RecordBatch.from_pylist([row], _WRITTEN_SCHEMA)


def _score_batch(images: ImageBatch, options: ScoringOptions) -> pa.Table:
    """Score a batch of images.

    Returns:
        A table with one row for each image: the columns of `images.origin`, and the scores
        (`emotion`, `confidence`, and the probability `p_...` of each emotion). The emotion is
        `UNCERTAIN` if the confidence is below the threshold. The scores of unreadable images are
        null.

    Raises:
        RunError: A probability is not a finite number.
    """
    classes = options.classes
    has_image = images.origin.column("reason").is_null().to_numpy()
    probabilities = np.zeros((len(has_image), len(classes)), np.float32)
    # Loading a model takes seconds, so it is not loaded for a batch without readable images.
    if len(images.pixels):
        probabilities[has_image] = options.load()(images.pixels)
    if not np.isfinite(probabilities).all():
        raise RunError(
            "the model returns probabilities that are not finite numbers; train it again"
        )
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    # The comparison is made in float32, the precision of the stored confidence, so that readers of
    # the file get the same results.
    predicted[confidence < np.float32(options.min_confidence)] = len(classes)
    is_missing = pa.array(~has_image)

    def null_if_unreadable(column: pa.Array) -> pa.Array:
        """Replace the values of unreadable images with null."""
        return pa.compute.if_else(is_missing, pa.scalar(None, column.type), column)

    names = pa.array([*classes, UNCERTAIN])
    emotion = names.take(pa.array(np.where(has_image, predicted, 0)))
    table = images.origin.append_column("emotion", null_if_unreadable(emotion))
    table = table.append_column("confidence", null_if_unreadable(pa.array(confidence)))
    for index, name in enumerate(classes):
        column = pa.array(probabilities[:, index])
        table = table.append_column(f"p_{name}", null_if_unreadable(column))
    return table
