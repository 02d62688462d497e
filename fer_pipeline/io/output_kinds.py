"""The kinds of output that jobs write, and the names of their files and folders.

The kind of a dataset is defined in `fer_pipeline.data.dataset_files`, because its folders are named
after the splits. The commit file and the in-progress file are explained in
`fer_pipeline.io.output_folder`.
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
"""Name of the file with the job's configuration, in each output folder."""

IN_PROGRESS_FILE = ".unfinished"
"""Name of the file that marks an output folder as in progress.

It exists from the first write of a job to its end, and stays if the job is interrupted. While it
exists, the files and folders of the output may be replaced, because a job wrote them.
"""

DEFAULT_MODEL = "mirrored"
"""Name of the bundled model that `evaluate` and `score` use by default."""

TENSORBOARD_FOLDER = "tensorboard"
EXPORT_FOLDER = "export"
"""Name of the folder, within the folder of a training run, in which `score` looks for an export."""
SAVED_MODEL_FOLDER = "saved_model"

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def _list_no_files(_folder: Path) -> Iterable[str]:
    """Return no data files. This is the default for kinds of output without data files."""
    return ()


@dataclass(frozen=True)
class OutputKind:
    """A kind of output, such as an evaluation: its name, and the files and folders it consists of.

    Attributes:
        name: Name with its article, for messages.
        format: Content of the key `format` of the commit file.
        commit_file: Name of the commit file, which is written last. A folder without a commit file
            holds no output.
        files: Names of the other files with fixed names, in the order in which they are written.
        folders: Names of the folders with fixed names; all their content belongs to the output.
        data_folders: Folders of the data files, which have unique names. "." is the output folder
            itself.
        data_prefix: First part of the names of the data files.
        list_data_files: Function that takes the path of an output folder and returns the data files
            that its commit file lists, relative to the folder. The list is empty if the folder has
            no commit file.
    """

    name: str
    format: str
    commit_file: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    data_folders: tuple[str, ...] = ()
    data_prefix: str = ""
    list_data_files: Callable[[Path], Iterable[str]] = _list_no_files

    def make_data_file_name(self, number: int) -> str:
        """Return a new, unique name for a Parquet file: PREFIX-NUMBER-UUID.parquet.

        Args:
            number: Number of the Spark task that writes the file, from 0. It has five digits in the
                name, so that sorted names are in the order of the tasks.
        """
        return f"{self.data_prefix}-{number:05d}-{uuid.uuid4()}.parquet"

    def is_data_file(self, path: Path) -> bool:
        """Return whether a path has the name of a data file, PREFIX-NUMBER-UUID.parquet.

        Only the name is checked; the file need not exist.
        """
        pattern = rf"{self.data_prefix}-\d{{5}}-{_UUID}\.parquet"
        return bool(self.data_prefix) and re.fullmatch(pattern, path.name) is not None

    def is_leftover(self, path: Path) -> bool:
        """Return whether a path may have been left behind by an interrupted job.

        Call this only for paths in a folder without a finished output, because the data files of a
        finished output look the same. A file or folder with a fixed name, such as `metrics.json`,
        counts only if the in-progress file `.unfinished` exists; without that file, the user may
        have created it.

        Args:
            path: Path of a file or a folder directly in the output folder.
        """
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
        """Return whether a path is a temporary file left behind by an interrupted write."""
        names = (self.commit_file, CONFIG_FILE, IN_PROGRESS_FILE, *self.files)
        has_temporary_name = any(storage.is_temporary_file(path, name) for name in names)
        return has_temporary_name and storage.is_file(path)


class RunFile(StrEnum):
    """Names of the files of a training run.

    The `UNFINISHED` files and the checkpoint exist only while the run is in progress.
    """

    MODEL = "model.keras"
    MODEL_INFO = "model.json"
    WEIGHTS = "model.weights.h5"
    ARCHITECTURE = "architecture.json"
    HISTORY = "history.csv"
    ACCURACY_PLOT = "accuracy.png"
    LOSS_PLOT = "loss.png"
    MLFLOW_RUN = "mlflow.json"
    # These have their own names because the files of the run that is being replaced stay until
    # the new run has ended.
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
    """Names of the files of an evaluation, in the order in which they are written."""

    PREDICTIONS = "predictions.parquet"
    CONFUSION_MATRIX = "confusion_matrix.png"
    CLASS_BARS = "classes.png"
    RELIABILITY = "reliability.png"
    COVERAGE = "coverage.png"
    EXAMPLES = "examples.png"
    MISTAKES = "mistakes.png"
    MISTAKES_TABLE = "mistakes.csv"
    # These two plots exist only for networks with convolutions.
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
    """Names of the files of a comparison, in the order in which they are written."""

    ACCURACY_COST = "accuracy_cost.png"
    COMPARISON = "comparison.json"


COMPARISON = OutputKind(
    name="a comparison",
    format="fer_pipeline comparison",
    commit_file=ComparisonFile.COMPARISON,
    files=(ComparisonFile.ACCURACY_COST,),
)

SCORES_FILE = "scores.json"

SCORE_TABLES = {"csv": "scores.csv", "jsonl": "scores.jsonl"}
"""Name of the file with all scores, by its format."""


def _list_score_files(folder: Path) -> list[str]:
    """Return the paths of the Parquet files that `scores.json` lists, relative to the folder.

    The list is empty if the folder has no `scores.json`.
    """
    commit_path = folder / SCORES_FILE
    if not storage.exists(commit_path):
        return []
    return [file["path"] for file in json.loads(storage.read_text(commit_path))["files"]]


SCORES = OutputKind(
    name="scores",
    format="fer_pipeline scores",
    commit_file=SCORES_FILE,
    files=tuple(SCORE_TABLES.values()),
    data_folders=(".",),
    data_prefix="scores",
    list_data_files=_list_score_files,
)


class ExportFile(StrEnum):
    """Names of the files of an export; the SavedModel is the folder `SAVED_MODEL_FOLDER`."""

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
"""Name of the file or folder of each export format."""
