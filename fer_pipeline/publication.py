"""A dataset's folder over time: who may write to it, and what is deleted from it when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_pipeline import manifest
from fer_pipeline.accounting import Split
from fer_pipeline.errors import DatasetError

_FOLDERS = (*(f"split={split}" for split in Split), "quarantine")
_FILES = (manifest.NAME, "config.yaml")


def claim(folder: Path, *, overwrite: bool) -> None:
    """Makes sure that a dataset may be written here, before any work is done.

    Args:
        folder: The dataset's folder; it need not be there.
        overwrite: Whether a dataset that is there may be replaced.

    Raises:
        DatasetError: There is one already, or the folder holds what is not ours.
    """
    if manifest.exists(folder):
        if not overwrite:
            raise DatasetError(f"{folder}: holds a dataset already; --overwrite replaces it")
    elif folder.is_dir():
        # What an interrupted run left is ours and is cleaned up; anything else is not.
        foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
        if foreign:
            raise DatasetError(
                f"{folder}: is not empty and no dataset (it holds {foreign[0]});"
                " choose another folder"
            )
    elif folder.exists():
        raise DatasetError(f"{folder}: is a file; choose a folder")


def _is_ours(path: Path) -> bool:
    return path.name in (*_FOLDERS, *_FILES) or path.name.startswith((".manifest-", ".config-"))


def clean(folder: Path, keep: Sequence[str]) -> None:
    """Deletes the files of ours that belong to no dataset: an older one's, a torn run's.

    Args:
        folder: The dataset's folder.
        keep: The files of the dataset that it holds, relative to it.
    """
    kept = {folder / name for name in keep}
    for place in (folder / name for name in _FOLDERS):
        for path in place.glob("part-*.parquet"):
            if path not in kept:
                path.unlink(missing_ok=True)
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    for pattern in (".manifest-*", ".config-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
