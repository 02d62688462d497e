"""The configuration of a training run, completed with the settings of its dataset."""

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
"""Configuration keys and sections that describe how a dataset was created."""

_NETWORK_SECTIONS = (
    "classes",
    "image",
    "labels",
)
"""The keys and sections of the dataset that change the network's inputs and targets."""


def load_run_config(
    output: str, path: Path | None, overrides: Sequence[str], *, resume: bool
) -> Config:
    """Read and validate the configuration of a run.

    Args:
        output: Folder of the run.
        path: Path of a YAML file. None is the stored configuration of a resumed run, or the default
            configuration of a new run.
        overrides: Texts `key=value` with a dotted key and a YAML value, which replaces the value of
            the file.
        resume: Whether the run is resumed.

    Raises:
        ConfigError: The configuration is invalid.
        RunError: There is no run to resume, or the run was written by an older version.
        StorageError: A file cannot be read.
    """
    if not resume or path is not None:
        return load_config(path, overrides)
    folder = parse_path(output)
    for name in (RunFile.UNFINISHED_CONFIG, CONFIG_FILE):
        if storage.is_file(folder / name):
            return load_stored_config(folder / name, overrides)
    raise RunError(f"{folder}: there is no run to resume; start one without --resume")


def complete_run_config(config: Config, dataset: StoredDataset) -> Config:
    """Return the configuration of a run with the dataset's settings and absolute teacher paths.

    The settings of the dataset, such as its classes and image size, replace those of `config`. If
    this changes a setting that the user set, and the setting affects the network's inputs or
    targets, a warning names it.

    Args:
        config: Configuration of the run.
        dataset: Dataset of the run.
    """
    return _make_teacher_paths_absolute(_apply_dataset_config(config, dataset))


def _apply_dataset_config(config: Config, dataset: StoredDataset) -> Config:
    """Return a configuration with `_DATASET_SECTIONS` replaced by those of the dataset's manifest.

    If this replaces a different value that the user set in `_NETWORK_SECTIONS`, a warning names the
    key. If the manifest is older and its keys are no longer valid, the configuration is returned
    unchanged.
    """
    stored_config = dataset.manifest.config
    sections = {name: stored_config[name] for name in _DATASET_SECTIONS if name in stored_config}
    try:
        completed_config = Config.model_validate({**config.to_dict(), **sections})
    except ValidationError:
        # The dataset was made by a version with different keys. Training does not need these
        # sections, because the manifest also states the image size, the classes and so on.
        return config
    changed_keys = [
        key
        for key in resume_checks.find_changed_keys(completed_config.to_dict(), config.to_dict())
        if key.startswith(_NETWORK_SECTIONS) and config.is_set(key)
    ]
    if changed_keys:
        log.warning(
            "the dataset was made with a different %s than is configured; the dataset's is used",
            ", ".join(changed_keys),
        )
    return completed_config


def _make_teacher_paths_absolute(config: Config) -> Config:
    """Return a configuration in which the paths of the distillation teachers are absolute.

    Relative paths would be wrong in the workers, whose working directories differ. The names of
    bundled models do not change.
    """
    distillation = config.training.distillation
    if not distillation.teachers:
        return config
    teachers = []
    for name in distillation.teachers:
        folder = trained_model.resolve_model_path(name)
        # The folder of a bundled model may differ between machines, so its name is kept.
        is_bundled = folder == trained_model.PRETRAINED_FOLDER / name
        teachers.append(name if is_bundled else str(folder.absolute()))
    training = config.training.model_copy(
        update={"distillation": distillation.model_copy(update={"teachers": teachers})}
    )
    return config.model_copy(update={"training": training})
