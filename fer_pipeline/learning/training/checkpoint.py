"""The checkpoint file, from which a run is resumed after it was killed."""

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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fer_pipeline.errors import RunError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN, DocumentFormat
from fer_pipeline.learning.training.history import HistoryEntry
from fer_pipeline.text import one_line

StateArrays = Mapping[str, list[npt.NDArray[Any]]]
"""Arrays of a trainer's variables, under keys such as `network` and `optimizer`."""

FORMAT_VERSION = 2
_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=RunError,
    problem="is damaged",
    upgrade=UPGRADE_RUN,
)
_STATE_ENTRY = "notes.json"


class _StateModel(BaseModel):
    """Base class of the parts of a checkpoint that are stored as JSON.

    The name of a JSON key is the alias of the field, if the field has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class BestEntry(_StateModel):
    """The validation with the best weights so far; the weights themselves are stored as arrays.

    Attributes:
        metric: Value of the metric that selects the weights; None if no metric selects them.
        entry: History entry of the validation in which the network had these weights.
        confusion: Confusion matrix on the validation split; None if there is no validation split.
    """

    metric: float | None
    entry: HistoryEntry = Field(alias="round")
    confusion: list[list[int]] | None


class RunSetup(_StateModel):
    """The configuration and the inputs of a run, which must not change when it is resumed.

    Attributes:
        config: The configuration, as nested mappings.
        dataset: The parts of the dataset's manifest that affect the training, such as its checksum
            and its classes.
        precision: Precision in which the network computes: `float32` or `mixed_bfloat16`.
        teachers: SHA-256 of each teacher's model, in hexadecimal digits.
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
        step: Number of completed training steps of the current restart. The position in the epoch
            follows from this number.
        restart: Index of the current restart, from 0. A run trains its network one or more times
            from the start; each time is a restart.
        stopped: Whether a callback has stopped the current restart.
        entries: Entries of the training history so far.
        callbacks: Changing attributes of each Keras callback that monitors a metric, such as
            `wait` of early stopping, by attribute name.
        best: Validation of the best weights so far; None if no weights have been kept yet.
    """

    step: int
    restart: int
    stopped: bool
    entries: list[HistoryEntry] = Field(alias="rounds")
    callbacks: list[dict[str, Any]]
    best: BestEntry | None


@dataclass(frozen=True)
class Checkpoint:
    """The complete state of a run after a step.

    Attributes:
        arrays: Arrays of all variables under the keys `network`, `optimizer`, `average`,
            `monitor` and `metrics`, and the best weights under `best`. The arrays of each key are
            in the order of a network that is built from the same configuration.
        state: The part of the state that is stored as JSON.
    """

    arrays: StateArrays
    state: RunState


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; an existing file is replaced atomically.

    Readers get either the old or the new checkpoint, never an incomplete file.

    Args:
        path: File to write.
        checkpoint: State of the run.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    state = json.dumps(
        {"format_version": FORMAT_VERSION, **checkpoint.state.model_dump(by_alias=True)}
    )
    # The values are Any because mypy also checks them against the parameter allow_pickle of savez.
    arrays: dict[str, Any] = {
        f"{group}/{number}": array
        for group, group_arrays in checkpoint.arrays.items()
        for number, array in enumerate(group_arrays)
    }
    arrays[_STATE_ENTRY] = np.frombuffer(state.encode(), np.uint8)
    # The content is created in memory, because NumPy does not close a file that it cannot write,
    # and Python would warn about the open file much later.
    content = io.BytesIO()
    np.savez(content, **arrays)
    with storage.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        StorageError: The file cannot be read.
        RunError: The file is damaged, or its format version is not the one that this code reads.
    """
    content = io.BytesIO(storage.read_bytes(path))
    try:
        with np.load(content, allow_pickle=False) as file:
            entries = {name: file[name] for name in file.files}
        state_fields = json.loads(entries.pop(_STATE_ENTRY).tobytes())
        format_version = state_fields.pop("format_version")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _make_damage_error(path, error) from error
    _FORMAT.require_version(path.parent, format_version)
    try:
        state = RunState.model_validate(state_fields)
    except ValidationError as error:
        raise _make_damage_error(path, error) from error
    arrays: dict[str, list[npt.NDArray[Any]]] = {}
    for name, array in entries.items():
        arrays.setdefault(name.partition("/")[0], []).append(array)
    return Checkpoint(arrays, state)


def _make_damage_error(path: Path, error: Exception) -> RunError:
    """Return the error for a checkpoint file that could not be read because of `error`."""
    return RunError(
        f"{path}: is not a complete checkpoint ({one_line(error)}); start again with --overwrite"
    )
