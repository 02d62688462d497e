"""Checks that a run is resumed with the configuration and the dataset of its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.learning.training import teachers
from fer_pipeline.learning.training.checkpoint import RunState

_MUTABLE_KEY_PREFIXES = (
    "tracking",
    "inference",
    "loader.reader",
    "training.checkpoint_every_steps",
    "model.temperature",
)
"""Prefixes of the configuration keys that may change when a run is resumed. They affect neither
the weights nor the history."""


def require_unchanged_inputs(
    folder: Path, state: RunState, config: Config, dataset: StoredDataset
) -> None:
    """Check that a run is resumed with its original configuration, dataset and teachers.

    The sizes of the dataset's files are not compared if the checkpoint does not contain them.

    Args:
        folder: Folder of the run.
        state: State of the run, read from its checkpoint.
        config: The current configuration.
        dataset: The current dataset.

    Raises:
        ConfigError: A setting that affects the weights or the history has changed.
        RunError: The model of a teacher has changed, or its run is no longer complete.
        DatasetError: The content of the dataset or its division into files has changed. Different
            files change the order of the rows, so that the run would skip some rows of the
            current epoch.
    """
    require_unchanged_config(folder, state.config, config)
    stored_signature, current_signature = state.dataset, make_dataset_signature(dataset)
    if any(byte_count is None for *_, byte_count in stored_signature["files"]):
        # A migrated checkpoint contains no file sizes, because preprocess has written the dataset
        # again and the sizes have changed.
        current_signature["files"] = [
            [split, row_count, None] for split, row_count, _ in current_signature["files"]
        ]
    changed = [
        name for name, part in current_signature.items() if stored_signature.get(name) != part
    ]
    if changed:
        raise DatasetError(
            f"{dataset.folder}: is not the dataset with which the run in {folder} was started (it"
            f" differs in {', '.join(changed)}); start again with --overwrite"
        )
    checksums = zip(config.training.distillation.teachers, state.teachers, strict=True)
    changed_teachers = [
        name for name, sha256 in checksums if sha256 != teachers.read_teacher_checksum(name)
    ]
    if changed_teachers:
        raise RunError(
            f"{folder}: the model of {', '.join(changed_teachers)} has changed since the run was"
            " started with it as a teacher; start again with --overwrite"
        )


def require_matching_worker_count(
    folder: Path, state: RunState, world_size: int, steps_per_epoch: int
) -> None:
    """Check that the number of workers does not change in the middle of an epoch.

    The order of the rows depends on the number of workers. With a different number, the run would
    repeat some rows of the epoch and skip others.

    Args:
        folder: Folder of the run.
        state: State of the run, read from its checkpoint.
        world_size: Current number of workers.
        steps_per_epoch: Number of batches in an epoch.

    Raises:
        RunError: The checkpoint is in the middle of an epoch, and the number of workers has
            changed.
    """
    epochs, step_in_epoch = divmod(state.step, steps_per_epoch)
    if step_in_epoch and state.workers != world_size:
        raise RunError(
            f"{folder}: the checkpoint is in the middle of epoch {epochs + 1}, which a different"
            f" number of workers started; resume the run with --workers {state.workers}"
        )


def require_unchanged_config(
    folder: Path, stored_config: Mapping[str, Any], config: Config
) -> None:
    """Check that a run is resumed with its original settings.

    Only settings that affect neither the weights nor the history may change, such as `tracking`.

    Args:
        folder: Folder of the run.
        stored_config: Configuration with which the run was started, as nested mappings.
        config: The current configuration.

    Raises:
        ConfigError: A setting that affects the weights or the history has changed.
    """
    changed = [
        key
        for key in find_changed_keys(stored_config, config.to_dict())
        if not key.startswith(_MUTABLE_KEY_PREFIXES)
    ]
    if changed:
        raise ConfigError(
            f"{folder}: the run was started with a different {', '.join(changed)}; resume it"
            " without --config and --set, or start again with --overwrite"
        )


def make_dataset_signature(dataset: StoredDataset) -> dict[str, Any]:
    """Return the parts of a dataset's manifest that affect a training run.

    Returns:
        The manifest's `checksum`, `classes`, `image` and `labels`, and `files`: a list of split,
        number of rows and number of bytes for each file.
    """
    manifest = dataset.manifest
    signature = manifest.model_dump(mode="json", include={"checksum", "classes", "image", "labels"})
    # The file names are left out, because they change each time that the same dataset is written.
    files = sorted(manifest.files, key=lambda file: file.path)
    return {**signature, "files": [[str(file.split), file.rows, file.bytes] for file in files]}


def find_changed_keys(first: Any, second: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that have different values in two configurations, sorted.

    A missing key counts as a key with the value None.

    Args:
        first: A configuration as nested mappings, or a single value of it.
        second: The configuration or value to compare with.
        prefix: Dotted key of the two values; empty for whole configurations.
    """
    if not (isinstance(first, dict) and isinstance(second, dict)):
        if first != second:
            yield prefix
        return
    for key in sorted({*first, *second}):
        dotted_key = f"{prefix}.{key}" if prefix else key
        yield from find_changed_keys(first.get(key), second.get(key), dotted_key)
