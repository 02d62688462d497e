"""The file from which a killed run is resumed, written in one step."""

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
from pydantic import BaseModel, ConfigDict, ValidationError

from fer_pipeline.errors import RunError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat
from fer_pipeline.learning.training.history import ValidationRound
from fer_pipeline.text import one_line

StateArrays = Mapping[str, list[npt.NDArray[Any]]]
"""Arrays of a trainer's variables, by the name of their group."""

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)
_STATE_ENTRY = "notes.json"


class _StateModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BestRound(_StateModel):
    """What a `BestSnapshot` has beside its weights.

    Attributes:
        metric: Value of the metric that selects the weights; None if none selects them.
        round: The round after which the network had these weights.
        confusion: Confusion matrix on the validation split; None without such a split.
    """

    metric: float | None
    round: ValidationRound
    confusion: list[list[int]] | None


class RunSetup(_StateModel):
    """The parts of a run that must be the same when it is resumed.

    Attributes:
        config: The configuration, as nested mappings.
        dataset: Signature of the dataset, of `make_dataset_signature`.
        precision: Precision in which the network computes.
        teachers: SHA-256 of the model of each teacher, in hexadecimal digits.
        workers: Number of workers.
    """

    config: dict[str, Any]
    dataset: dict[str, Any]
    precision: str
    teachers: list[str] = []
    workers: int = 1


class RunState(RunSetup):
    """The state of a run after a step, without its arrays.

    Attributes:
        step: Number of completed training steps of the restart; the position in the epoch follows
            from it.
        restart: Number of the restart, from 0.
        stopped: Whether a callback has stopped the restart.
        rounds: The history.
        callbacks: Attributes of each monitoring callback, by name.
        best: The best round so far; None before the first.
    """

    step: int
    restart: int
    stopped: bool
    rounds: list[ValidationRound]
    callbacks: list[dict[str, Any]]
    best: BestRound | None


@dataclass(frozen=True)
class Checkpoint:
    """A run after a step.

    Attributes:
        arrays: Arrays of all variables by group, and the best weights as group `best`. The order
            within a group is that of the network built from the same configuration.
        state: The rest of the state.
    """

    arrays: StateArrays
    state: RunState


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of an older one: readers see one of both, never a part.

    Args:
        path: The file.
        checkpoint: The checkpoint.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    state = json.dumps({"format_version": FORMAT_VERSION, **checkpoint.state.model_dump()})
    arrays = {
        f"{group}/{number}": array
        for group, members in checkpoint.arrays.items()
        for number, array in enumerate(members)
    }
    arrays[_STATE_ENTRY] = np.frombuffer(state.encode(), np.uint8)
    # In memory: NumPy does not close a file that it cannot write, and warns about it much later.
    content = io.BytesIO()
    np.savez(content, **arrays)
    with storage.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        StorageError: The file cannot be read.
        RunError: The file is damaged, or has another format version.
    """
    content = io.BytesIO(storage.read_bytes(path))
    try:
        with np.load(content, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
        document = json.loads(entries.pop(_STATE_ENTRY).tobytes())
        format_version = document.pop("format_version")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _make_damage_error(path, error) from error
    _FORMAT.require_version(path.parent, format_version)
    try:
        state = RunState.model_validate(document)
    except ValidationError as error:
        raise _make_damage_error(path, error) from error
    arrays: dict[str, list[npt.NDArray[Any]]] = {}
    for name, array in entries.items():
        arrays.setdefault(name.partition("/")[0], []).append(array)
    return Checkpoint(arrays, state)


def _make_damage_error(path: Path, error: Exception) -> RunError:
    return RunError(
        f"{path}: is not a complete checkpoint ({one_line(error)}); start again with --overwrite"
    )
