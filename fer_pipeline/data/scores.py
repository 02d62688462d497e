"""The scores of a `score` job on disk: their manifest, and the rows of its files."""

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


class ScoreFile(BaseModel):
    """A Parquet file of scores.

    Attributes:
        path: Path of the file, relative to the folder of the scores.
        rows: Number of rows.
        bytes: Size of the file.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    rows: int
    bytes: int


class ScoreManifest(BaseModel):
    """Description of the scores in a folder; the content of `scores.json`.

    Attributes:
        images: Number of input images, readable or not.
        scored: Number of images with an emotion.
        emotions: Number of images by emotion; also of uncertain ones if `inference.min_confidence`
            was set.
        unscored: Number of images without an emotion, by reason.
        files: The Parquet files that belong to the scores.
        model: Folder of the model's run and checksum of its file.
        backend: What ran the model: name, format of the model's file, reason of the choice, and
            checksum of that file.
        flip_tta: Whether the probabilities are the mean over an image and its mirror image.
        min_confidence: Probability below which an image is uncertain; 0 is off.
        versions: Versions of the packages that computed the scores.
        created: Time of writing, in ISO 8601.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal["fer_pipeline scores"] = "fer_pipeline scores"
    images: int
    scored: int
    emotions: dict[str, int]
    unscored: dict[str, int]
    files: list[ScoreFile] = Field(min_length=1)
    model: dict[str, Any]
    backend: dict[str, Any]
    flip_tta: bool
    min_confidence: float
    versions: dict[str, str]
    created: str


def read_manifest(folder: Path) -> ScoreManifest:
    """Read `scores.json`.

    Raises:
        DatasetError: The folder holds no scores, or those of another version.
        StorageError: The folder cannot be reached.
    """
    path = folder / SCORES_FILE
    if not storage.is_file(path):
        raise DatasetError(f"{folder}: has no {SCORES_FILE}; write scores with the score job")
    try:
        return ScoreManifest.model_validate_json(storage.read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise DatasetError(
            f"{path}: is damaged or of another version ({key}: {first['msg']}); score again"
        ) from error


def read_scores(path: str | Path) -> pa.Table:
    """Return the scores in a folder, one row for each image.

    Only the files that `scores.json` names are read: an interrupted job may have left others.

    Args:
        path: Folder of a score job, a local path or a URL.

    Returns:
        A table with the columns of `fer_pipeline.data.schema.score_columns`.

    Raises:
        DatasetError: The folder holds no scores, or a file is missing, damaged or of another
            length than `scores.json` states.
        StorageError: The folder cannot be reached.
    """
    folder = parse_path(path)
    return pa.concat_tables([_read_file(folder, file) for file in read_manifest(folder).files])


def _read_file(folder: Path, file: ScoreFile) -> pa.Table:
    path = folder / file.path
    try:
        with path.open("rb") as stream:
            table = pq.read_table(stream)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path}: is missing, but {SCORES_FILE} names it; score again"
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: cannot be read: {one_line(error)}; score again") from error
    if table.num_rows != file.rows:
        raise DatasetError(
            f"{path}: has {table.num_rows:,} rows, {SCORES_FILE} states {file.rows:,}; score again"
        )
    return table
