"""Writing of scores in Spark's Python workers: one Parquet file for each Spark task."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_arrow_schema
from fer_pipeline.data.outcomes import QuarantineReason
from fer_pipeline.data.record_batch import Pixels
from fer_pipeline.data.scores import UNCERTAIN
from fer_pipeline.errors import RunError
from fer_pipeline.faces.clip_faces import smooth_tracks
from fer_pipeline.io.output_kinds import SCORES
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.spark.file_kinds import NAMED_FILES
from fer_pipeline.spark.session import get_task_index
from fer_pipeline.spark.steps import error_context

Batches = Iterator[pa.RecordBatch]
"""Arrow batches that a function for `mapInArrow` gets and yields."""

Predict = Callable[[Pixels], npt.NDArray[np.float32]]
"""A function that maps images, uint8 of shape (n, size, size), to probabilities, float32 of shape
(n, classes)."""


class ImageBatch(NamedTuple):
    """A batch of images to score.

    Attributes:
        origin: One row for each image with the columns of `schema.ORIGIN` (source file, record
            number, image hash, variant, replica), those of `schema.CLIP`, which are null for a
            still image, those of `FaceRow` and `face_image`, which are null for a crop, and the
            columns `reason` and `detail`. The last two describe the error of an unreadable image.
            For a readable image `reason` is null, and `detail` is a note, see `data.image_notes`,
            or null. The rows of a clip are all in the same batch.
        pixels: Pixels of the m readable images, in order, uint8 of shape (m, size, size).
    """

    origin: pa.Table
    pixels: Pixels


@dataclass(frozen=True)
class ScoringOptions:
    """The model and the options of scoring; sent to Spark's workers.

    Attributes:
        load: Function that loads the model in a worker and returns its prediction function.
        classes: Emotions in the order of the model's outputs.
        min_confidence: Threshold in [0, 1]. If the highest probability of an image is lower, its
            emotion is `UNCERTAIN`.
        smoothing: Half of the width in seconds of the window in which the probabilities of a face
            in a clip are averaged.
    """

    load: Callable[[], Predict]
    classes: Sequence[str]
    min_confidence: float = 0.0
    smoothing: float = 0.0


_WRITTEN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("counts", pa.string()),
        ("problems", pa.map_(pa.string(), pa.string())),
    ]
)
WRITTEN_DDL = "path string, rows bigint, bytes bigint, counts string, problems map<string,string>"
"""Description of a written file: Spark types by column name."""


@dataclass
class ScoreCounts:
    """Numbers of scored and refused images and faces.

    Each row of the scores is counted once, in `emotions`, `reasons`, `refused` or `clip_reasons`.

    Attributes:
        emotions: Number of scored images and faces, by predicted emotion.
        reasons: Number of images without a score and without a face, by reason.
        refused: Number of faces without a score, by reason.
        clip_reasons: Number of frames without a face, and of clips that cannot be read, or not to
            their end, by reason.
        notes: Number of scored images by note, see `data.image_notes`.
        images: Number of still images, of which some have several faces.
        with_faces: Number of still images in which a face was found.
        faces: Number of found faces, in still images and frames.
        clips: Number of clips.
        unreadable_clips: Number of clips that cannot be read, or not to their end.
        frames: Number of sampled frames.
        frames_with_faces: Number of sampled frames in which a face was found.
    """

    emotions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    clip_reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    images: int = 0
    with_faces: int = 0
    faces: int = 0
    clips: int = 0
    unreadable_clips: int = 0
    frames: int = 0
    frames_with_faces: int = 0

    def count_rows(self, scores: pa.Table) -> None:
        """Count the rows of a table of scores; all rows of a clip must be in the same table."""
        reason, face = scores.column("reason"), scores.column("face")
        has_face, is_clip = face.is_valid(), scores.column("frame").is_valid()
        self.emotions.update(scores.column("emotion").drop_null().to_pylist())
        self.refused.update(reason.filter(has_face).drop_null().to_pylist())
        self.notes.update(scores.column("detail").filter(reason.is_null()).drop_null().to_pylist())
        self.faces += _count(has_face)
        # Each image and each frame with faces has one face of the number 0.
        is_first_face = pc.fill_null(pc.equal(face, 0), False)
        is_whole = pc.invert(has_face)
        is_still_whole = pc.and_not(is_whole, is_clip)
        self.reasons.update(reason.filter(is_still_whole).drop_null().to_pylist())
        with_faces = _count(pc.and_not(is_first_face, is_clip))
        self.with_faces += with_faces
        self.images += with_faces + _count(is_still_whole)
        is_frame = scores.column("time").is_valid()
        is_clip_whole = pc.and_(is_whole, is_clip)
        self.clip_reasons.update(reason.filter(is_clip_whole).drop_null().to_pylist())
        with_faces = _count(pc.and_(is_first_face, is_frame))
        self.frames_with_faces += with_faces
        self.frames += with_faces + _count(pc.and_(is_whole, is_frame))
        self.unreadable_clips += _count(pc.and_not(is_clip, is_frame))
        self.clips += pc.count_distinct(scores.column("source").filter(is_clip)).as_py()

    def add(self, text: str) -> None:
        """Add the counts that `to_json` has returned."""
        for name, count in json.loads(text).items():
            current = getattr(self, name)
            if isinstance(current, Counter):
                current.update(count)
            else:
                setattr(self, name, current + count)

    def to_json(self) -> str:
        """Return the counts as JSON."""
        return json.dumps(vars(self))


def _count(mask: pa.ChunkedArray) -> int:
    """Return the number of true values."""
    return int(pc.sum(mask).as_py() or 0)


class ScoreWriter(contextlib.AbstractContextManager["ScoreWriter"]):
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
        self._counts = ScoreCounts()
        self._problems: dict[str, str] = {}

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
        self._counts.count_rows(scores)
        if len(self._problems) <= NAMED_FILES:
            is_unreadable = pc.equal(scores.column("reason"), QuarantineReason.UNREADABLE)
            for file in scores.select(["source", "detail"]).filter(is_unreadable).to_pylist():
                self._problems[file["source"]] = file["detail"]

    def describe_file(self) -> Batches:
        """Yield one row with the name, size and totals of the file, if it was written."""
        if self._row_count:
            row = {
                "path": self._path.name,
                "rows": self._row_count,
                "bytes": self._path.stat().st_size,
                "counts": self._counts.to_json(),
                "problems": list(self._problems.items()),
            }
            yield pa.RecordBatch.from_pylist([row], _WRITTEN_SCHEMA)


def _smooth_faces(
    origin: pa.Table,
    has_image: npt.NDArray[np.bool_],
    probabilities: npt.NDArray[np.float32],
    half_width: float,
) -> npt.NDArray[np.float32]:
    """Smooth the probabilities of the faces of a clip along their tracks.

    Args:
        origin: Origin of n images; see `ImageBatch`. Those without a track stay as they are.
        has_image: Whether an image has probabilities, of shape (n,).
        probabilities: Probabilities, float32 of shape (n, classes).
        half_width: Half of the width of the window in seconds.
    """
    rows = np.flatnonzero(has_image & origin.column("track").is_valid().to_numpy())
    if not len(rows):
        return probabilities
    tracks = origin.column("track").take(pa.array(rows)).to_numpy().astype(np.int64)
    times = origin.column("time").take(pa.array(rows)).to_numpy()
    smoothed = probabilities.copy()
    smoothed[rows] = smooth_tracks(tracks, times, probabilities[rows], half_width)
    return smoothed


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
    probabilities = _smooth_faces(images.origin, has_image, probabilities, options.smoothing)
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
