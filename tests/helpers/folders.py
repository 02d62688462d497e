"""Files in an output folder."""

from __future__ import annotations

import json
from pathlib import Path

RUN_FILES = {
    "model.keras",
    "model.weights.h5",
    "architecture.json",
    "model.json",
    "history.csv",
    "accuracy.png",
    "loss.png",
    "config.yaml",
}
"""Files of a finished run, without the logs for TensorBoard."""


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def list_dataset_files(folder: Path) -> set[str]:
    """Return the files of a complete dataset: those in the manifest, and two more.

    It asserts that all of them exist, with the size in the manifest.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["files"]:
        size = (folder / file["path"]).stat().st_size
        assert size == file["bytes"], f"{file['path']}: {size} bytes, not {file['bytes']}"
    for path in manifest["quarantine"]:
        assert (folder / path).is_file(), path
    files = {file["path"] for file in manifest["files"]}
    return {"manifest.json", "config.yaml", *files, *manifest["quarantine"]}
