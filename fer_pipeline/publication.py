"""What a job puts into a folder: who may write there, what makes it whole, what is deleted when.

Every job writes one file last and in one step, the mark. A folder without it holds nothing that a
reader takes for whole.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fer_pipeline import storage
from fer_pipeline.accounting import Split
from fer_pipeline.errors import StorageError

_UNIQUE = re.compile(r"part-\d{5}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.parquet")
CONFIG = "config.yaml"


def unique_name(number: int) -> str:
    """A name for a data file that nothing else has; files stand in the order of their numbers."""
    return f"part-{number:05d}-{uuid.uuid4()}.parquet"


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: What it is called in messages, with its article.
        format: What its mark, a JSON file, says under the key `format`.
        mark: The file that makes it whole; the configuration is written after it.
        names: The other names in its folder.
        data: The folders, within it, of files with unique names.
    """

    name: str
    format: str
    mark: str
    names: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    def is_ours(self, path: Path) -> bool:
        """Whether a job of ours wrote this, before its mark."""
        if path.is_dir():
            inside = all(_UNIQUE.fullmatch(file.name) for file in path.iterdir())
            return path.name in self.data and inside
        return path.name in self.names or self.is_temporary(path) or self._is_data(path)

    def is_temporary(self, path: Path) -> bool:
        """Whether this is what an interrupted write of ours left."""
        written = map(storage.temporary_pattern, (self.mark, CONFIG, *self.names))
        return path.is_file() and any(pattern.fullmatch(path.name) for pattern in written)

    def _is_data(self, path: Path) -> bool:
        return "." in self.data and _UNIQUE.fullmatch(path.name) is not None


DATASET = Kind(
    "a dataset",
    "fer_pipeline dataset",
    "manifest.json",
    data=(*(f"split={split}" for split in Split), "quarantine"),
)
RUN = Kind(
    "a finished training run",
    "fer_pipeline run",
    "model.json",
    names=(
        *("model.keras", "history.csv", "accuracy.png", "loss.png"),
        *("unfinished.keras", "unfinished.csv"),
    ),
)
EVALUATION = Kind(
    "an evaluation",
    "fer_pipeline evaluation",
    "metrics.json",
    names=("predictions.parquet", "confusion_matrix.png", "classes.png"),
)
SCORES = Kind("scores", "fer_pipeline scores", "scores.json", data=(".",))


def claim(folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Makes sure that a job may write here, before it does any work.

    Args:
        folder: The output's folder; it need not be there.
        kind: What will be written.
        overwrite: Whether one that is there may be replaced.

    Raises:
        StorageError: There is one already, or the folder holds what is not ours.
    """
    mark = folder / kind.mark
    if mark.is_file():
        if not _says(mark, kind.format):
            raise StorageError(f"{mark}: is not that of {kind.name}; choose another folder")
        if not overwrite:
            raise StorageError(f"{folder}: holds {kind.name} already; --overwrite replaces it")
    elif folder.is_dir():
        # What an interrupted run left is ours and may be replaced; anything else is not.
        foreign = sorted(path.name for path in folder.iterdir() if not kind.is_ours(path))
        if foreign:
            raise StorageError(
                f"{folder}: is not empty and not {kind.name} (there is {foreign[0]});"
                " choose another folder"
            )
    elif folder.exists():
        raise StorageError(f"{folder}: is a file; choose a folder")


def _says(mark: Path, form: str) -> bool:
    try:
        return json.loads(storage.read_text(mark)).get("format") == form
    except (ValueError, AttributeError):
        return False


def clean(folder: Path, kind: Kind, keep: Iterable[str]) -> None:
    """Deletes the data files that the mark does not name: an older output's, a torn run's.

    Args:
        folder: The output's folder.
        kind: What it holds.
        keep: The data files that the mark names, relative to the folder.
    """
    kept = {folder / name for name in keep}
    for place in (folder / name for name in kind.data):
        if not place.is_dir():
            continue
        for path in place.iterdir():
            if _UNIQUE.fullmatch(path.name) and path not in kept:
                path.unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()
    for path in folder.iterdir() if folder.is_dir() else ():
        if kind.is_temporary(path):
            path.unlink(missing_ok=True)
