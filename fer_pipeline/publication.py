"""What a job puts into a folder: who may write there, what makes it whole, what is deleted when.

Every job writes one file last and in one step, the mark. A folder without it holds nothing that a
reader takes for whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from fer_pipeline.accounting import Split
from fer_pipeline.errors import StorageError


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        name: What it is called in messages, with its article.
        mark: The file that makes it whole.
        names: The other names in its folder, as patterns.
        data: The folders, within it, of files with unique names.
    """

    name: str
    mark: str
    names: tuple[str, ...]
    data: tuple[str, ...] = ()

    def is_ours(self, name: str) -> bool:
        """Whether a job of ours writes something of this name: a temporary file counts too."""
        patterns = (self.mark, *self.names)
        temporary = tuple(f".{pattern.rpartition('.')[0]}-*" for pattern in patterns)
        return any(fnmatch(name, pattern) for pattern in (*patterns, *temporary))


DATASET = Kind(
    "a dataset",
    "manifest.json",
    names=("config.yaml", "split=*", "quarantine"),
    data=(*(f"split={split}" for split in Split), "quarantine"),
)
RUN = Kind(
    "a finished training run",
    "model.json",
    names=("config.yaml", "model.keras", "history.csv", "accuracy.png", "loss.png", "unfinished.*"),
)
SCORES = Kind("scores", "scores.json", names=("config.yaml", "part-*.parquet"), data=(".",))


def claim(folder: Path, kind: Kind, *, overwrite: bool) -> None:
    """Makes sure that a job may write here, before it does any work.

    Args:
        folder: The output's folder; it need not be there.
        kind: What will be written.
        overwrite: Whether one that is there may be replaced.

    Raises:
        StorageError: There is one already, or the folder holds what is not ours.
    """
    if (folder / kind.mark).is_file():
        if not overwrite:
            raise StorageError(f"{folder}: holds {kind.name} already; --overwrite replaces it")
    elif folder.is_dir():
        # What an interrupted run left is ours and may be replaced; anything else is not.
        foreign = sorted(path.name for path in folder.iterdir() if not kind.is_ours(path.name))
        if foreign:
            raise StorageError(
                f"{folder}: is not empty and not {kind.name} (there is {foreign[0]});"
                " choose another folder"
            )
    elif folder.exists():
        raise StorageError(f"{folder}: is a file; choose a folder")


def clean(folder: Path, kind: Kind, keep: Iterable[str]) -> None:
    """Deletes the data files that the mark does not name: an older output's, a torn run's.

    Args:
        folder: The output's folder.
        kind: What it holds.
        keep: The data files that the mark names, relative to the folder.
    """
    kept = {folder / name for name in keep}
    for place in (folder / name for name in kind.data):
        for path in place.glob("part-*.parquet"):
            if path not in kept:
                path.unlink(missing_ok=True)
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    for path in folder.glob(".*-*"):
        if kind.is_ours(path.name):
            path.unlink(missing_ok=True)
