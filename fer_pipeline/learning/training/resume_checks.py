"""Checks that a run is resumed with the configuration and the dataset with which it was started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.learning.training import distillation
from fer_pipeline.learning.training.checkpoint import RunState

_MUTABLE_KEYS = (
    "tracking",
    "inference",
    "training.checkpoint_every_steps",
    "model.temperature",
)
"""Prefixes of the keys that may change: they affect neither the weights nor the history."""


def require_same_run(folder: Path, state: RunState, config: Config, dataset: StoredDataset) -> None:
    """Check that a run is resumed with the configuration, dataset and teachers of its start.

    Args:
        folder: Folder of the run.
        state: State of the run in its checkpoint.
        config: The current configuration.
        dataset: The current dataset.

    Raises:
        ConfigError: The configuration differs.
        RunError: A teacher differs, or is no finished run any more.
        DatasetError: The dataset differs in its content or its layout. With another layout, rows
            would come in another order, and some rows of the current epoch would be left out.
    """
    require_same_config(folder, state.config, config)
    started, current = state.dataset, dataset_signature(dataset)
    if any(size is None for *_, size in started["files"]):
        # A migrated checkpoint: preprocess has written the dataset again, with other file sizes.
        current["files"] = [[split, rows, None] for split, rows, _ in current["files"]]
    changed = [name for name, part in current.items() if started.get(name) != part]
    if changed:
        raise DatasetError(
            f"{dataset.folder}: is not the dataset with which the run in {folder} was started (it"
            f" differs in {', '.join(changed)}); start again with --overwrite"
        )
    checksums = zip(config.training.distillation.teachers, state.teachers, strict=True)
    replaced = [name for name, sha256 in checksums if sha256 != distillation.teacher_checksum(name)]
    if replaced:
        raise RunError(
            f"{folder}: the model of {', '.join(replaced)} has changed since the run was started"
            " with it as a teacher; start again with --overwrite"
        )


def require_same_workers(
    folder: Path, state: RunState, world_size: int, steps_per_epoch: int
) -> None:
    """Check that an epoch is finished by as many workers as have started it.

    The order of the rows depends on the number of workers: with another number, some rows of the
    epoch would come twice and others never.

    Args:
        folder: Folder of the run.
        state: State of the run in its checkpoint.
        world_size: Current number of workers.
        steps_per_epoch: Batches of an epoch.

    Raises:
        RunError: The run is within an epoch that another number of workers has started.
    """
    epochs, step_in_epoch = divmod(state.step, steps_per_epoch)
    if step_in_epoch and state.workers != world_size:
        raise RunError(
            f"{folder}: the checkpoint is in the middle of epoch {epochs + 1}, which another number"
            f" of workers has started; resume the run with --workers {state.workers}"
        )


def require_same_config(folder: Path, started: Mapping[str, Any], config: Config) -> None:
    """Check that no key that affects the weights has changed since a run was started.

    Args:
        folder: Folder of the run.
        started: The configuration of the run's start, as nested mappings.
        config: The current configuration.

    Raises:
        ConfigError: A key has changed.
    """
    changed = [
        key for key in changed_keys(started, config.to_dict()) if not key.startswith(_MUTABLE_KEYS)
    ]
    if changed:
        raise ConfigError(
            f"{folder}: the run was started with a different {', '.join(changed)}; resume it"
            " without --config and --set, or start again with --overwrite"
        )


def dataset_signature(dataset: StoredDataset) -> dict[str, Any]:
    """Return the parts of a manifest that affect a run: content, meaning and layout."""
    manifest = dataset.manifest
    signature = manifest.model_dump(mode="json", include={"checksum", "classes", "image", "labels"})
    # Without the names of the files: they change each time that the same dataset is written.
    files = sorted(manifest.files, key=lambda file: file.path)
    return {**signature, "files": [[str(file.split), file.rows, file.bytes] for file in files]}


def changed_keys(first: Any, second: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys in which two configurations differ, in alphabetical order."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        if first != second:
            yield prefix
        return
    for key in sorted({*first, *second}):
        path = f"{prefix}.{key}" if prefix else key
        yield from changed_keys(first.get(key), second.get(key), path)
