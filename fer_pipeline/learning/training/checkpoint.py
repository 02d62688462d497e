"""What a run that was killed is continued from: one file, written in one step."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline import publication, storage
from fer_pipeline.errors import RunError

NAME = "checkpoint.npz"
FORMAT_VERSION = 2
_FORMAT = storage.FileFormat(
    version=FORMAT_VERSION,
    error=RunError,
    invalid="is damaged",
    upgrade=publication.UPGRADE_RUN,
)
_NOTES = "notes.json"


@dataclass(frozen=True)
class Checkpoint:
    """A run at one moment.

    Attributes:
        arrays: Every variable, by group: the order within a group is that of the network built
            from the same configuration.
        notes: All else, as JSON's plain values.
    """

    arrays: Mapping[str, list[npt.NDArray[Any]]]
    notes: Mapping[str, Any]


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in place of an older one: a reader sees the one or the other, whole.

    Raises:
        StorageError: The folder cannot be written, the disk is full, ...
    """
    notes = json.dumps({"format_version": FORMAT_VERSION, **checkpoint.notes})
    arrays = {
        f"{group}/{number}": array
        for group, members in checkpoint.arrays.items()
        for number, array in enumerate(members)
    }
    arrays[_NOTES] = np.frombuffer(notes.encode(), np.uint8)
    # NumPy leaves a file that it cannot write open, and complains of it long after.
    content = io.BytesIO()
    np.savez(content, **arrays)
    with storage.replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        StorageError: It cannot be read.
        RunError: It is damaged, or of a later version of this package.
    """
    content = io.BytesIO(storage.read_bytes(path))
    try:
        with np.load(content, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        notes = json.loads(found.pop(_NOTES).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path}: is no whole checkpoint ({reason}); --overwrite begins anew"
        ) from error
    _FORMAT.require_version(path.parent, notes["format_version"])
    arrays: dict[str, list[npt.NDArray[Any]]] = {}
    for name, array in found.items():
        arrays.setdefault(name.partition("/")[0], []).append(array)
    return Checkpoint(arrays, notes)
