"""Reading of the scores that a score job wrote: the manifest and the rows of the Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_pipeline.errors import DatasetError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import SCORES_FILE
from fer_pipeline.io.paths import parse_path
from fer_pipeline.text import one_line

UNCERTAIN = "uncertain"
"""The emotion that is written for an image if its highest probability is too low."""


class ScoreFile(BaseModel):
    """A Parquet file of scores.

    Attributes:
        path: Path of the file, relative to the folder of the scores.
        rows: Number of rows in the file.
        bytes: Size of the file, in bytes.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    rows: int
    bytes: int


class ScoreManifest(BaseModel):
    """The manifest of the scores in a folder; the content of `scores.json`.

    Attributes:
        images: Number of input images, readable or not, without clips.
        with_faces: Number of images in which faces were found.
        clips: Number of clips, readable or not.
        unreadable_clips: Number of clips that cannot be read, or not to their end.
        frames: Number of frames of clips that were searched for faces.
        frames_with_faces: Number of frames in which faces were found.
        faces: Number of faces in images and frames.
        scored: Number of scores: of crops and of faces.
        emotions: Numbers of scores by emotion, including the emotion `uncertain` if
            `inference.min_confidence` was set.
        unscored: Numbers of images without a score and without a face, by reason.
        refused: Numbers of faces without a score, by reason.
        notes: Numbers of scores by note on the image, see `image_notes`.
        files: The Parquet files of the scores.
        model: Folder of the model's run and checksum of its file.
        backend: Library that ran the model: name, format of the model's file, reason for the
            choice, and checksum of the file.
        detector: Name of the detector of faces, and checksum of the files of its networks; None if
            no faces were searched for.
        every: Time in seconds between the frames of clips; None if clips were not read.
        smoothing: Half of the width in seconds of the window in which the probabilities of faces in
            clips are averaged.
        flip_tta: Whether the probabilities are averaged over each image and its mirror image.
        min_confidence: Highest probability below which an image is uncertain; 0 disables this.
        versions: Versions of the packages that computed the scores.
        created: Time of writing, in ISO 8601.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["fer_pipeline scores"] = "fer_pipeline scores"
    images: int
    with_faces: int = 0
    clips: int = 0
    unreadable_clips: int = 0
    frames: int = 0
    frames_with_faces: int = 0
    faces: int = 0
    scored: int
    emotions: dict[str, int]
    unscored: dict[str, int]
    refused: dict[str, int] = {}
    notes: dict[str, int] = {}
    files: list[ScoreFile] = Field(min_length=1)
    model: dict[str, Any]
    backend: dict[str, Any]
    detector: dict[str, Any] | None = None
    every: float | None = None
    smoothing: float = 0.0
    flip_tta: bool
    min_confidence: float
    versions: dict[str, str]
    created: str


def read_scores_manifest(folder: Path) -> ScoreManifest:
    """Read and validate `scores.json`, which describes the scores in a folder and lists the files.

    Args:
        folder: Output folder of a score job.

    Raises:
        DatasetError: The folder contains no `scores.json`, or the file is damaged or of an
            incompatible version.
        StorageError: The folder cannot be reached.
    """
    path = folder / SCORES_FILE
    if not storage.is_file(path):
        raise DatasetError(f"{folder}: has no {SCORES_FILE}; write scores with the score job")
    try:
        return ScoreManifest.model_validate_json(storage.read_text(path))
    except ValidationError as error:
        first_error = error.errors()[0]
        key = ".".join(map(str, first_error["loc"])) or "the file"
        raise DatasetError(
            f"{path}: is damaged or of a different version ({key}: {first_error['msg']}); score"
            " again"
        ) from error


def read_scores(path: str | Path) -> pa.Table:
    """Read the scores in a folder, one row for each crop, face, or image that has neither.

    Only the files that `scores.json` lists are read; an interrupted job may have left other files.

    Args:
        path: Output folder of a score job, a local path or a URL.

    Returns:
        A table with the origin of each image (`source`, `record`, `image_hash`, ...), the position
        and quality of each face (`face`, `left`, `top`, ...; null for crops), `emotion`,
        `confidence`, the probability of each class (`p_angry`, ...), `reason` and `detail` for
        images that could not be scored, and in `detail` a note on some scored images.

    Raises:
        DatasetError: The folder contains no scores, a file is missing or damaged, or its number of
            rows differs from `scores.json`.
        StorageError: The folder cannot be reached.
    """
    folder = parse_path(path)
    return pa.concat_tables(
        [_read_score_file(folder, file) for file in read_scores_manifest(folder).files]
    )


def _read_score_file(folder: Path, file: ScoreFile) -> pa.Table:
    """Read one Parquet file of scores, and check its number of rows.

    Raises:
        DatasetError: The file is missing or damaged, or its number of rows differs from
            `scores.json`.
    """
    path = folder / file.path
    try:
        with path.open("rb") as stream:
            table = pq.read_table(stream)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: is missing, but {SCORES_FILE} lists it; score again"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read: {one_line(error)}; score again") from error
    if table.num_rows != file.rows:
        raise DatasetError(
            f"{path}: has {table.num_rows:,} rows, {SCORES_FILE} states {file.rows:,}; score again"
        )
    return table
