"""What a job puts into a folder: who may write there, what makes it whole, what is deleted when.

Every job writes one file last and in one step, the mark. A folder without it holds nothing that a
reader takes for whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_pipeline import storage
from fer_pipeline.accounting import Split
from fer_pipeline.errors import StorageError

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
BEGUN = ".unfinished"
"""Stands in a folder from a job's first write to its end: until then our names are ours there."""

SHIPPED = "mirrored"
"""The model of the package that evaluates and scores where no other is named."""

UPGRADE_RUN = "convert it with scripts/migrate-run {folder}"
"""What to do about a run or an export that an older version of the package wrote."""

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: What it is called in messages, with its article.
        format: What its mark, a JSON file, says under the key `format`.
        mark: The file that makes it whole; the configuration is written after it.
        names: The other names in its folder.
        data: The folders, within it, of files with unique names.
        prefix: With what these names begin.
        folders: The folders, within it, that are ours with all that they hold.
    """

    name: str
    format: str
    mark: str
    names: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    prefix: str = ""
    folders: tuple[str, ...] = ()

    def unique_name(self, number: int) -> str:
        """A name that no other file has; files stand in the order of their numbers."""
        return f"{self.prefix}-{number:05d}-{uuid.uuid4()}.parquet"

    def is_data(self, path: Path) -> bool:
        """Whether this is a data file of ours."""
        pattern = rf"{self.prefix}-\d{{5}}-{_UUID}\.parquet"
        return bool(self.prefix) and re.fullmatch(pattern, path.name) is not None

    def is_ours(self, path: Path) -> bool:
        """Whether a job of ours wrote this, before its mark."""
        begun = storage.exists(path.parent / BEGUN)
        if storage.is_folder(path):
            if path.name in self.folders:
                return begun
            return path.name in self.data and all(self.is_data(file) for file in path.iterdir())
        return (
            path.name == BEGUN
            or (begun and path.name in (*self.names, CONFIG))
            or ("." in self.data and self.is_data(path))
            or self.is_temporary(path)
        )

    def is_temporary(self, path: Path) -> bool:
        """Whether this is what an interrupted write of ours left."""
        written = map(storage.temporary_pattern, (self.mark, CONFIG, BEGUN, *self.names))
        return storage.is_file(path) and any(pattern.fullmatch(path.name) for pattern in written)


DATASET = Kind(
    "a dataset",
    "fer_pipeline dataset",
    "manifest.json",
    data=(*(f"split={split}" for split in Split), "quarantine"),
    prefix="part",
)
RUN = Kind(
    "a finished training run",
    "fer_pipeline run",
    "model.json",
    names=(
        *("model.keras", "model.weights.h5", "architecture.json", "history.csv"),
        *("accuracy.png", "loss.png", "mlflow.json"),
        *("unfinished.csv", "unfinished.yaml", "checkpoint.npz"),
    ),
    folders=("tensorboard", "export"),
)
EVALUATION = Kind(
    "an evaluation",
    "fer_pipeline evaluation",
    "metrics.json",
    names=(
        *("predictions.parquet", "confusion_matrix.png", "classes.png", "reliability.png"),
        *("coverage.png", "examples.png", "mistakes.png", "mistakes.csv"),
        *("feature_maps.png", "class_activation.png"),
    ),
)
COMPARISON = Kind(
    "a comparison",
    "fer_pipeline comparison",
    "comparison.json",
    names=("accuracy_cost.png",),
)
SCORES = Kind("scores", "fer_pipeline scores", "scores.json", data=(".",), prefix="scores")
EXPORT = Kind(
    "an export",
    "fer_pipeline export",
    "export.json",
    names=("model.tflite", "model.int8.tflite"),
    folders=("saved_model",),
)
EXPORTED = {
    "saved_model": "saved_model",
    "litert": "model.tflite",
    "litert_int8": "model.int8.tflite",
}
"""The forms in which a model can be exported, and the folder or file that each becomes."""


def claim(folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Makes sure that a job may write here, before it does any work.

    Args:
        folder: The output's folder; it need not be there.
        kind: What will be written.
        overwrite: Whether one that is there may be replaced.

    Raises:
        StorageError: There is one already, or the folder holds what is not ours.
    """
    if _is_taken(folder, kind, overwrite=overwrite):
        return
    if storage.is_folder(folder):
        # What an interrupted run left is ours and may be replaced; anything else is not.
        foreign = sorted(path.name for path in folder.iterdir() if not kind.is_ours(path))
        if foreign:
            raise StorageError(
                f"{folder}: is not empty and not {kind.name} (there is {foreign[0]});"
                " choose another folder"
            )
    elif storage.exists(folder):
        raise StorageError(f"{folder}: is a file; choose a folder")


def _is_taken(folder: Path, kind: Kind, *, overwrite: bool) -> bool:
    """Whether there is one already.

    Raises:
        StorageError: There is, and it may not be replaced, or another kind's.
    """
    mark = folder / kind.mark
    if not storage.is_file(mark):
        return False
    if not _says(mark, kind.format):
        raise StorageError(f"{mark}: is not that of {kind.name}; choose another folder")
    if not overwrite:
        raise StorageError(f"{folder}: holds {kind.name} already; --overwrite replaces it")
    return True


def begin(folder: Path) -> None:
    """Before a job's first write: what is written until its end is known to be ours.

    Raises:
        StorageError: The folder cannot be written.
    """
    storage.touch(folder / BEGUN)


@contextlib.contextmanager
def writing(folder: Path, kind: Kind, *, overwrite: bool) -> Iterator[None]:
    """From a job's first write to its end: nobody else begins to write there meanwhile.

    A process that is killed lets go of it. Where the filesystem knows no locks, two jobs may write
    at the same time, and the last one's mark stands for all that it names.

    Args:
        folder: The output's folder.
        kind: What will be written.
        overwrite: Whether one that is there may be replaced.

    Raises:
        StorageError: Another job is writing there, or has published there since `claim`, or the
            folder cannot be written.
    """
    idle = not storage.exists(folder / BEGUN)
    try:
        begin(folder)
        with storage.locked(folder / BEGUN) as ours:
            if not ours:
                raise StorageError(
                    f"{folder}: another job is writing there; wait for its end, or choose another"
                    " folder"
                )
            try:
                # Somebody else may have published there meanwhile.
                _is_taken(folder, kind, overwrite=overwrite)
            except StorageError:
                if idle:
                    storage.remove(folder / BEGUN)
                raise
            yield
    finally:
        # One to which nothing was written.
        storage.remove_empty_folder(folder)


def require_shared(folder: Path, written: Iterable[str]) -> None:
    """Makes sure, before a mark names them, that the driver sees what the tasks wrote.

    Args:
        folder: The output's folder.
        written: Data files, relative to it.

    Raises:
        StorageError: The tasks wrote to a disk of their own.
    """
    missing = [name for name in written if not storage.is_file(folder / name)]
    if missing:
        raise StorageError(
            f"{folder}: the tasks wrote files that are not there ({missing[0]}); on a cluster the"
            " output must be a folder that all machines share"
        )


def _says(mark: Path, form: str) -> bool:
    try:
        return json.loads(storage.read_text(mark)).get("format") == form
    except (ValueError, AttributeError):
        return False


def withdraw(folder: Path, kind: Kind) -> None:
    """Deletes an output that means nothing any more; what else stands in its folder stays.

    It never fails: what makes the output mean nothing is worth more than that it is gone. Where the
    folder or a part of it is a symbolic link, or not the file or folder that a job of ours writes,
    all of it stays, and where something cannot be deleted, the rest; a warning says so.

    Args:
        folder: Its folder. Where it holds no such output, nothing is deleted.
        kind: What it is.
    """
    try:
        if _is_there(folder, kind):
            _delete(folder, kind)
    except (OSError, StorageError) as error:
        log.warning("%s: %s of another model is left there: %s", folder, kind.name, error)


def _is_there(folder: Path, kind: Kind) -> bool:
    mark = folder / kind.mark
    return (storage.is_file(mark) and _says(mark, kind.format)) or storage.is_file(folder / BEGUN)


def _delete(folder: Path, kind: Kind) -> None:
    """Deletes an output of ours.

    Raises:
        StorageError: A part of it is a link or not what we write, or cannot be deleted.
    """
    files = [folder / name for name in (kind.mark, CONFIG, *kind.names)]
    folders = [folder / name for name in kind.folders]
    for path in (folder, *files, *folders):
        as_written = storage.is_file(path) if path in files else storage.is_folder(path)
        if path.is_symlink() or (storage.exists(path) and not as_written):
            raise StorageError(f"{path} is a link, or not what a job writes there")
    # Until the last of it is gone, all of it is known to be ours.
    begin(folder)
    for path in files:
        storage.remove(path)
    for path in folders:
        storage.remove_folder(path)
    clean(folder, kind, keep=())
    if not any(folder.iterdir()):
        storage.remove_folder(folder)


def clean(folder: Path, kind: Kind, keep: Iterable[str]) -> None:
    """Ends a job: deletes data files that the mark does not name, an older or a torn run's.

    Args:
        folder: The output's folder.
        kind: What it holds.
        keep: The data files that the mark names, relative to the folder.
    """
    if not storage.is_folder(folder):
        return
    kept = {folder / name for name in keep}
    for place in (folder / name for name in kind.data):
        if not storage.is_folder(place):
            continue
        for path in place.iterdir():
            if kind.is_data(path) and path not in kept and storage.is_abandoned(path):
                storage.remove(path)
        if place != folder:
            storage.remove_empty_folder(place)
    for path in folder.iterdir():
        if kind.is_temporary(path):
            storage.remove(path)
    storage.remove(folder / BEGUN)
