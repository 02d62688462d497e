"""Configuration of a training run: its own if it is resumed, and its dataset's settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from fer_pipeline.config import Config, load_config, load_stored_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import RunError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import CONFIG_FILE, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.training import resume_checks

log = logging.getLogger(__name__)

_DATASET_SECTIONS = (
    "classes",
    "input",
    "image",
    "labels",
    "split",
    "sampling",
    "variants",
    "output",
)
"""The keys and sections that describe how a dataset was made."""

_NETWORK_SECTIONS = (
    "classes",
    "image",
    "labels",
)
"""Those of them that change what the network is trained on."""


def load_run_config(
    output: str, path: Path | None, overrides: Sequence[str], *, resume: bool
) -> Config:
    """Read the configuration of a run.

    A run that is resumed has its own configuration in its folder, unless a file is given.

    Args:
        output: Folder of the run.
        path: Path of a YAML file; None without one.
        overrides: As for `load_config`.
        resume: Whether the run is resumed.

    Raises:
        ConfigError: The configuration is invalid.
        RunError: There is no run to resume, or it was written by an older version.
    """
    if not resume or path is not None:
        return load_config(path, overrides)
    folder = parse_path(output)
    for name in (RunFile.UNFINISHED_CONFIG, CONFIG_FILE):
        if storage.is_file(folder / name):
            return load_stored_config(folder / name, overrides)
    raise RunError(f"{folder}: there is no run to resume; start one without --resume")


def complete_run_config(config: Config, dataset: StoredDataset) -> Config:
    """Return a configuration with the settings of the dataset, and with absolute paths."""
    return _with_absolute_paths(_with_dataset_config(config, dataset))


def _with_dataset_config(config: Config, dataset: StoredDataset) -> Config:
    stored = dataset.manifest.config
    sections = {name: stored[name] for name in _DATASET_SECTIONS if name in stored}
    try:
        completed = Config.model_validate({**config.to_dict(), **sections})
    except ValidationError:
        # A dataset of another version: its manifest states all that training needs.
        return config
    changed = [
        key
        for key in resume_checks.find_changed_keys(completed.to_dict(), config.to_dict())
        if key.startswith(_NETWORK_SECTIONS) and config.is_set(key)
    ]
    if changed:
        log.warning(
            "the dataset was made with another %s than is configured; the dataset's is used",
            ", ".join(changed),
        )
    return completed


def _with_absolute_paths(config: Config) -> Config:
    """Return a configuration whose paths are valid in the current folder of every worker."""
    distillation = config.training.distillation
    if not distillation.teachers:
        return config
    teachers = []
    for name in distillation.teachers:
        folder = trained_model.resolve_model_path(name)
        # A bundled model is in another folder on each machine.
        is_bundled = folder == trained_model.PRETRAINED_FOLDER / name
        teachers.append(name if is_bundled else str(folder.absolute()))
    training = config.training.model_copy(
        update={"distillation": distillation.model_copy(update={"teachers": teachers})}
    )
    return config.model_copy(update={"training": training})
