"""Scoring of clips in Spark: faces are found in segments of clips, and linked once per clip."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import ARROW_TYPES, build_arrow_schema
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.decoder_process import Crash, DecoderProcess
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.face_row import FaceRow
from fer_pipeline.data.image_decoding import DecodedFile
from fer_pipeline.data.image_records import collect_records
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.faces.clip_faces import (
    ClipFace,
    describe_unreadable_clip,
    find_faces_in_clip,
    link_clip_faces,
)
from fer_pipeline.faces.clips import Segment, plan_segments
from fer_pipeline.faces.photographs import FaceOptions
from fer_pipeline.io.file_parts import FilePart
from fer_pipeline.spark.find_clips import Clip, open_clip
from fer_pipeline.spark.listed_files import TASKS_PER_CORE
from fer_pipeline.spark.read_plan import make_part_table, plan_tasks
from fer_pipeline.spark.read_records import Batches, SourceRecords
from fer_pipeline.spark.score_images import ImageSource, build_image_batch
from fer_pipeline.spark.score_writer import ImageBatch

_LONGEST_SEGMENT = 500
"""Largest number of sampling times of a segment whose clip can be divided."""

_UNKNOWN_STEPS = 100
"""Assumed number of sampling times of a clip whose duration is unknown."""

_TIME_LIMIT = 4 * 3600.0
"""Seconds after which the reading of a segment is given up."""

_FOUND_COLUMNS = {
    "source": "string",
    "segment": "bigint",  # number of the first sampling time of the segment
    "position": "int",  # position of the row within the segment
    "frame": "int",
    "time": "double",
    **schema.FACE,
    "outcome": "int",
    "detail": "string",
}
"""Columns of the rows between the search for faces and their scores: Spark type by name."""

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ClipOptions:
    """Options of the scoring of clips.

    Attributes:
        interval: Time between the sampled frames in seconds.
        faces: Options of the search for faces.
        max_pixels: Largest number of pixels of a frame.
        enhancement: Enhancement of the faces that the model expects.
    """

    interval: float
    faces: FaceOptions
    max_pixels: int
    enhancement: Enhancement


@dataclass(frozen=True)
class _SegmentReader:
    """A function that finds the faces of a segment of a clip; it runs in a decoder process."""

    options: ClipOptions

    def __call__(self, part: FilePart) -> list[ClipFace]:
        """Return the faces of the segment from the sampling time `part.start` to `part.end`."""
        if part.problem is not None:
            return [describe_unreadable_clip(part.problem)]
        options, segment = self.options, Segment(part.start, part.end)
        try:
            with open_clip(part.name) as file:
                faces = find_faces_in_clip(
                    file, options.interval, options.faces, segment, options.max_pixels
                )
                return list(faces)
        except UnreadableFileError as error:
            return [describe_unreadable_clip(str(error))]


def create_clip_source(
    spark: SparkSession,
    clips: Sequence[Clip],
    options: ClipOptions,
    task_count: int | None = None,
) -> ImageSource:
    """Create a source of faces to score from clips.

    The faces are found in segments of the clips, by all cores. The rows of a clip then come
    together in one task, which links the faces. The result does not depend on the number of tasks.

    Args:
        spark: The session.
        clips: The clips.
        options: Options of the scoring.
        task_count: Number of tasks that find faces; by default it depends on the number of cores.
    """
    core_count = spark.sparkContext.defaultParallelism
    parts, weights = plan_parts(clips, options.interval, task_count or TASKS_PER_CORE * core_count)
    task_weight = math.ceil(sum(weights) / (task_count or TASKS_PER_CORE * core_count))
    frame, iterate_parts = plan_tasks(
        spark, make_part_table(parts), np.array(weights, np.int64), task_weight
    )
    reader = _SegmentReader(options)

    def find_faces(batches: Batches) -> Batches:
        """Find the faces of the segments of a task."""
        for part in iterate_parts(batches):
            [faces] = _get_decoder(reader).map([part])
            if isinstance(faces, Crash):
                faces = [describe_unreadable_clip(str(faces))]
            yield from _build_batches(part, faces)

    ddl = ", ".join(f"`{name}` {kind}" for name, kind in _FOUND_COLUMNS.items())
    rows = (
        frame.mapInArrow(find_faces, ddl)
        .repartition(min(len(clips), core_count), "source")
        .sortWithinPartitions("source", "segment", "position")
    )
    return ImageSource(rows, functools.partial(_link_clips, options=options))


def plan_parts(
    clips: Sequence[Clip], interval: float, task_count: int
) -> tuple[list[FilePart], list[int]]:
    """Divide clips into segments.

    Args:
        clips: The clips.
        interval: Time between the sampled frames in seconds.
        task_count: Number of tasks that read the segments.

    Returns:
        A part for each segment, from its first sampling time to that after its last one; and the
        number of its sampling times, as far as it is known.
    """
    steps = [_count_steps(clip, interval) for clip in clips]
    steps_per_part = min(_LONGEST_SEGMENT, math.ceil(sum(steps) / task_count))
    parts: list[FilePart] = []
    weights: list[int] = []
    for clip, step_count in zip(clips, steps, strict=True):
        segments = [Segment()]
        if clip.facts is not None:
            segments = plan_segments(clip.facts, interval, math.ceil(step_count / steps_per_part))
        for segment in segments:
            parts.append(
                FilePart(
                    clip.name, clip.size, clip.problem, None, None, segment.start, segment.stop
                )
            )
            stop = step_count if segment.stop is None else segment.stop
            weights.append(max(1, stop - segment.start))
    return parts, weights


def _count_steps(clip: Clip, interval: float) -> int:
    """Return about how many sampling times a clip has."""
    if clip.facts is None:
        return 1
    if clip.facts.duration is None:
        return _UNKNOWN_STEPS
    return max(1, math.ceil(clip.facts.duration / interval))


@functools.cache
def _get_decoder(read: _SegmentReader) -> DecoderProcess[FilePart, list[ClipFace]]:
    """Return the decoder process of this Spark worker."""
    return DecoderProcess(read, _TIME_LIMIT)


def _build_batches(part: FilePart, faces: Sequence[ClipFace]) -> Batches:
    """Yield what was found in a segment as rows with the columns _FOUND_COLUMNS."""
    columns = build_arrow_schema(_FOUND_COLUMNS)
    rows = []
    for position, (frame, time, file) in enumerate(faces):
        face = file.face._asdict() if file.face is not None else {}
        pixels = file.image.tobytes() if file.image is not None else None
        outcome, detail = file.problem or (Outcome.KEPT, None)
        rows.append(
            {
                "source": part.name,
                "segment": part.start,
                "position": position,
                "frame": frame,
                "time": time,
                **face,
                schema.FACE_IMAGE: pixels,
                "outcome": int(outcome),
                "detail": detail,
            }
        )
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        yield pa.RecordBatch.from_pylist(rows[first : first + _ROWS_AT_ONCE], columns)


def _link_clips(batches: Batches, options: ClipOptions) -> Iterator[ImageBatch]:
    """Link the faces of the clips of a task.

    Args:
        batches: Rows with the columns _FOUND_COLUMNS, in the order of clips and times.
        options: Options of the scoring.

    Yields:
        One batch for each clip.
    """
    rows = (row for batch in batches for row in batch.to_pylist())
    for source, clip_rows in groupby(rows, lambda row: cast(str, row["source"])):
        faces = [_restore_face(row, options.faces.size) for row in clip_rows]
        yield _build_clip_batch(source, _join_problems(faces), options)


def _restore_face(row: dict[str, Any], size: int) -> ClipFace:
    """Return what was found, from a row with the columns _FOUND_COLUMNS."""
    image = face = problem = None
    if row[schema.FACE_IMAGE] is not None:
        image = np.frombuffer(row[schema.FACE_IMAGE], np.uint8).reshape(size, size)
    if row["face"] is not None:
        face = FaceRow._make(row[name] for name in FaceRow._fields)
    if row["outcome"] != Outcome.KEPT:
        problem = (Outcome(row["outcome"]), row["detail"])
    return ClipFace(row["frame"], row["time"], DecodedFile(image, problem, face=face))


def _join_problems(faces: Sequence[ClipFace]) -> list[ClipFace]:
    """Return what was found, with at most one row for what cannot be read, at the end.

    Its frame is the number after that of the last frame that was read.
    """
    read_faces = [face for face in faces if face.time is not None]
    problems = [face for face in faces if face.time is None]
    if problems:
        end = 1 + max((face.frame for face in read_faces if face.frame is not None), default=-1)
        read_faces.append(problems[0]._replace(frame=end))
    return read_faces


def _build_clip_batch(source: str, faces: Sequence[ClipFace], options: ClipOptions) -> ImageBatch:
    """Prepare the faces of a clip for the model, and describe them."""
    parts = []
    for parsed in collect_records((face.file, source) for face in faces):
        records = SourceRecords(
            sources=pa.array([source] * len(parsed), pa.string()),
            blocks=pa.array(np.zeros(len(parsed), np.int64)),
            positions=np.zeros(len(parsed), np.int32),
            parsed=parsed,
        )
        parts.append(
            build_image_batch(records, BlockOffsets(), options.faces.size, options.enhancement)
        )
    origin = pa.concat_tables([part.origin for part in parts])
    columns = {
        "frame": [face.frame for face in faces],
        "time": [face.time for face in faces],
        "track": link_clip_faces(faces),
    }
    for name, values in columns.items():
        index = origin.schema.get_field_index(name)
        array = pa.array(values, ARROW_TYPES[schema.CLIP[name]])
        origin = origin.set_column(index, name, array)
    return ImageBatch(origin, np.concatenate([part.pixels for part in parts]))
