"""Annotated copies of scored images and clips, drawn by Spark's Python workers."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from fer_pipeline.data import schema
from fer_pipeline.data.decoder_process import DecoderProcess
from fer_pipeline.data.image_decoding import DecodedFile, DecodingOptions, decode_file
from fer_pipeline.faces.annotation import AnnotatedFace, draw_faces
from fer_pipeline.io import storage
from fer_pipeline.io.file_parts import ContentReader, FilePart
from fer_pipeline.io.paths import parse_path
from fer_pipeline.spark.annotate_clips import ClipAnnotator, ScoredClip, can_draw_plots

_QUALITY = 92

_CLIP_TIME_LIMIT = 4 * 3600.0
"""Seconds after which the copy of a clip is given up."""

_BOX = ("left", "top", "width", "height")


@dataclass(frozen=True)
class AnnotationOptions:
    """Options of the annotated copies; sent to Spark's workers.

    Attributes:
        folder: Path or URL of the folder for the annotated copies.
        roots: Folders that the user gave as inputs; the copies have the same paths below `folder`
            as the images have below these.
        classes: Emotions in the order of the model's outputs.
        decoding: Options of the decoding.
    """

    folder: str
    roots: tuple[str, ...]
    classes: Sequence[str]
    decoding: DecodingOptions


@dataclass(frozen=True)
class CopyCounts:
    """Numbers of annotated copies.

    Attributes:
        images: Number of images with a copy.
        clips: Number of clips with a copy.
        missing: Number of scored images and clips that could not be read again.
        missing_plots: Number of clips without a plot, because the workers have no matplotlib.
    """

    images: int = 0
    clips: int = 0
    missing: int = 0
    missing_plots: int = 0


def annotate_scored_images(
    spark: SparkSession, files: Sequence[Path], options: AnnotationOptions
) -> CopyCounts:
    """Draw the faces and emotions of all scored images and clips.

    Args:
        spark: The session.
        files: Parquet files of the scores; the rows of an image are next to each other.
        options: Options of the copies.

    Returns:
        What became of the images and clips.
    """
    paths = [str(file) for file in files]

    def annotate(numbers: Iterable[int]) -> Iterator[Counter[str]]:
        """Annotate the images of some files."""
        for number in numbers:
            yield _annotate_file(paths[number], options)

    counts: Counter[str] = sum(
        spark.sparkContext.parallelize(range(len(paths)), len(paths))
        .mapPartitions(annotate)
        .collect(),
        Counter(),
    )
    return CopyCounts(**counts)


def _annotate_file(path: str, options: AnnotationOptions) -> Counter[str]:
    """Annotate the images and clips of one file of scores; the keys are those of `CopyCounts`."""
    columns = [
        *("source", *schema.CLIP, "face", *_BOX, "emotion", "confidence", "reason"),
        *(f"p_{name}" for name in options.classes),
    ]
    counts = Counter[str]()
    reader = ContentReader()
    with parse_path(path).open("rb") as stream:
        rows = (
            row
            for batch in pq.ParquetFile(stream).iter_batches(columns=columns)
            for row in batch.to_pylist()
        )
        for source, group in groupby(rows, lambda row: row["source"]):
            image_rows = list(group)
            faces = [row for row in image_rows if row["emotion"] or row["left"] is not None]
            if not faces:
                continue
            if faces[0]["frame"] is not None:
                # Also the frames without a face, in which nothing is drawn.
                counts[_annotate_clip(source, image_rows, options)] += 1
                counts["missing_plots"] += not can_draw_plots()
                continue
            decoded = decode_file(reader.read(FilePart(source, -1)), options.decoding, lambda *_: 1)
            counts["missing" if decoded.image is None else "images"] += 1
            if decoded.image is not None:
                _write_copy(source, decoded, faces, options)
    reader.close()
    return counts


def _annotate_clip(source: str, rows: list[dict[str, Any]], options: AnnotationOptions) -> str:
    """Annotate a clip, and return whether it is one of `clips` or `missing`."""
    name = make_copy_name(source, options.roots)
    clip = ScoredClip(source, rows, parse_path(options.folder) / name)
    annotator = ClipAnnotator(tuple(options.classes), options.decoding.max_pixels)
    [is_readable] = _get_clip_process(annotator).map([clip])
    return "clips" if is_readable is True else "missing"


@functools.cache
def _get_clip_process(annotator: ClipAnnotator) -> DecoderProcess[ScoredClip, bool]:
    """Return the process in which this Spark worker reads and writes clips."""
    return DecoderProcess(annotator, _CLIP_TIME_LIMIT)


def _write_copy(
    source: str, decoded: DecodedFile, rows: Sequence[dict[str, Any]], options: AnnotationOptions
) -> None:
    """Write the annotated copy of an image.

    Raises:
        StorageError: The folder cannot be written.
    """
    pixels = np.asarray(decoded.image)
    whole = (0, 0, pixels.shape[1], pixels.shape[0])
    faces = []
    for row in rows:
        box = np.array(whole if row["left"] is None else [row[name] for name in _BOX], float)
        is_scored = row["emotion"] is not None
        probabilities = np.array([row[f"p_{name}"] for name in options.classes], float)
        faces.append(AnnotatedFace(box, probabilities if is_scored else None, row["reason"] or ""))
    annotated = draw_faces(np.ascontiguousarray(pixels[..., ::-1]), faces, options.classes)
    path = parse_path(options.folder) / f"{make_copy_name(source, options.roots)}.jpg"
    _, content = cv2.imencode(".jpg", annotated, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    with storage.atomic_write(path) as temporary:
        temporary.write_bytes(content.tobytes())


def make_copy_name(source: str, roots: Sequence[str]) -> str:
    """Return the path of an annotated copy without its ending, relative to that of all copies.

    Args:
        source: Name of the image, as in the scores.
        roots: Folders that the user gave as inputs.

    Returns:
        Path of the image or clip below one of the roots; or, for a file that is in none of them,
        its name after a checksum of its path, so that files of the same name differ.
    """
    for root in sorted(roots, key=len, reverse=True):
        prefix = root.rstrip("/") + "/"
        if source.startswith(prefix):
            return source[len(prefix) :]
    digest = hashlib.sha256(os.fsencode(source)).hexdigest()[:8]
    return f"{digest}-{source.rsplit('/', 1)[-1]}"
