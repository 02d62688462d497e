"""The kinds of output that jobs write, and the names of their files and folders.

The kind of a dataset is in `fer_pipeline.data.dataset_files`, beside the names of the splits.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fer_pipeline.io import storage

CONFIG_FILE = "config.yaml"
"""The configuration of the job, in the folder of each kind of output."""

IN_PROGRESS_FILE = ".unfinished"
"""Exists from the first write of a job to its end: the names of an output's files are the job's."""

DEFAULT_MODEL = "mirrored"
"""The model of the package that evaluates and scores if no other is named."""

TENSORBOARD_FOLDER = "tensorboard"
EXPORT_FOLDER = "export"
"""The folder, within that of a training run, in which scoring looks for an export."""
SAVED_MODEL_FOLDER = "saved_model"

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def _list_no_files(_folder: Path) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class OutputKind:
    """A kind of output: how it is called, and what a job writes into its folder.

    Attributes:
        name: The name in messages, with its article.
        format: The content of the key `format` of the commit file.
        commit_file: The JSON file that is written last. A folder without it holds no output.
        files: The other files with fixed names, in the order in which they are written.
        folders: The folders that belong to the job with all that they hold.
        data_folders: The folders of files with unique names; "." is the output's folder itself.
        data_prefix: The beginning of these unique names.
        list_data_files: Function from the folder of an output to the data files that its commit
            file names, relative to the folder; none if there is no commit file.
    """

    name: str
    format: str
    commit_file: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    data_folders: tuple[str, ...] = ()
    data_prefix: str = ""
    list_data_files: Callable[[Path], Iterable[str]] = _list_no_files

    def make_unique_name(self, number: int) -> str:
        """Return a name that no other data file has; names sort by their numbers.

        Args:
            number: Number of the task that writes the file, from 0.
        """
        return f"{self.data_prefix}-{number:05d}-{uuid.uuid4()}.parquet"

    def is_data_file(self, path: Path) -> bool:
        """Return whether a path has the name of a data file of this kind."""
        pattern = rf"{self.data_prefix}-\d{{5}}-{_UUID}\.parquet"
        return bool(self.data_prefix) and re.fullmatch(pattern, path.name) is not None

    def is_leftover(self, path: Path) -> bool:
        """Return whether an interrupted job of this kind wrote a file or folder."""
        is_in_progress = storage.exists(path.parent / IN_PROGRESS_FILE)
        if storage.is_folder(path):
            if path.name in self.folders:
                return is_in_progress
            return path.name in self.data_folders and all(map(self.is_data_file, path.iterdir()))
        return (
            path.name == IN_PROGRESS_FILE
            or (is_in_progress and path.name in (*self.files, CONFIG_FILE))
            or ("." in self.data_folders and self.is_data_file(path))
            or self.is_temporary(path)
        )

    def is_temporary(self, path: Path) -> bool:
        """Return whether a path is the temporary file of an interrupted write."""
        names = (self.commit_file, CONFIG_FILE, IN_PROGRESS_FILE, *self.files)
        is_temporary = any(storage.is_temporary_file(path, name) for name in names)
        return is_temporary and storage.is_file(path)


class RunFile(StrEnum):
    """The files of a training run; those named unfinished are there only until it has ended."""

    MODEL = "model.keras"
    MODEL_INFO = "model.json"
    WEIGHTS = "model.weights.h5"
    ARCHITECTURE = "architecture.json"
    HISTORY = "history.csv"
    ACCURACY_PLOT = "accuracy.png"
    LOSS_PLOT = "loss.png"
    MLFLOW_RUN = "mlflow.json"
    # The model that is replaced stays whole until the run has ended, and so do its files.
    UNFINISHED_HISTORY = "unfinished.csv"
    UNFINISHED_CONFIG = "unfinished.yaml"
    CHECKPOINT = "checkpoint.npz"


RUN = OutputKind(
    name="a finished training run",
    format="fer_pipeline run",
    commit_file=RunFile.MODEL_INFO,
    files=tuple(file for file in RunFile if file != RunFile.MODEL_INFO),
    folders=(TENSORBOARD_FOLDER, EXPORT_FOLDER),
)


class EvaluationFile(StrEnum):
    """The files of an evaluation, in the order in which they are written."""

    PREDICTIONS = "predictions.parquet"
    CONFUSION_MATRIX = "confusion_matrix.png"
    CLASS_BARS = "classes.png"
    RELIABILITY = "reliability.png"
    COVERAGE = "coverage.png"
    EXAMPLES = "examples.png"
    MISTAKES = "mistakes.png"
    MISTAKES_TABLE = "mistakes.csv"
    # Only networks with convolutions have these two.
    FEATURE_MAPS = "feature_maps.png"
    CLASS_ACTIVATION = "class_activation.png"
    METRICS = "metrics.json"


EVALUATION = OutputKind(
    name="an evaluation",
    format="fer_pipeline evaluation",
    commit_file=EvaluationFile.METRICS,
    files=tuple(file for file in EvaluationFile if file != EvaluationFile.METRICS),
)


class ComparisonFile(StrEnum):
    """The files of a comparison, in the order in which they are written."""

    ACCURACY_COST = "accuracy_cost.png"
    COMPARISON = "comparison.json"


COMPARISON = OutputKind(
    name="a comparison",
    format="fer_pipeline comparison",
    commit_file=ComparisonFile.COMPARISON,
    files=(ComparisonFile.ACCURACY_COST,),
)

SCORES_FILE = "scores.json"


def _list_score_files(folder: Path) -> list[str]:
    scores_file = folder / SCORES_FILE
    if not storage.exists(scores_file):
        return []
    return [file["path"] for file in json.loads(storage.read_text(scores_file))["files"]]


SCORES = OutputKind(
    name="scores",
    format="fer_pipeline scores",
    commit_file=SCORES_FILE,
    data_folders=(".",),
    data_prefix="scores",
    list_data_files=_list_score_files,
)


class ExportFile(StrEnum):
    """The files of an export; the form for TensorFlow is the folder `SAVED_MODEL_FOLDER`."""

    LITERT = "model.tflite"
    LITERT_INT8 = "model.int8.tflite"
    EXPORT_INFO = "export.json"


EXPORT = OutputKind(
    name="an export",
    format="fer_pipeline export",
    commit_file=ExportFile.EXPORT_INFO,
    files=(ExportFile.LITERT, ExportFile.LITERT_INT8),
    folders=(SAVED_MODEL_FOLDER,),
)

EXPORT_FILES: dict[str, str] = {
    "saved_model": SAVED_MODEL_FOLDER,
    "litert": ExportFile.LITERT.value,
    "litert_int8": ExportFile.LITERT_INT8.value,
}
"""The formats in which a model can be exported, and the folder or file of each."""
