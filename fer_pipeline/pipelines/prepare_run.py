"""Checks before a training run is started or resumed; they need no TensorFlow."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_pipeline.config import Config, load_stored_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import CONFIG_FILE, RUN, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.training import checkpoint as checkpoint_file
from fer_pipeline.learning.training import resume_checks, settings_checks
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.pipelines.run_config import complete_run_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """A run that has passed all checks and can be started or resumed.

    Attributes:
        dataset: Dataset to train on.
        folder: Folder of the run.
        config: Configuration, completed with the settings of the dataset.
        checkpoint: Checkpoint to resume from; None for a new run.
        overwrite: Whether a finished run in the folder may be replaced.
    """

    dataset: StoredDataset
    folder: Path
    config: Config
    checkpoint: Checkpoint | None
    overwrite: bool

    @contextlib.contextmanager
    def lock_for_writing(self) -> Iterator[None]:
        """Lock the folder, and write the run's configuration; unlock it after the `with` block.

        If the run starts at step 0, the checkpoint and the history of an earlier, unfinished run
        are deleted.

        Raises:
            StorageError: Another job is writing to the folder or has just written a run to it, or
                the folder cannot be written.
        """
        with OutputFolder(self.folder, RUN, overwrite=self.overwrite).lock_for_writing():
            if not self.checkpoint:
                # The unfinished run that is being replaced must not be resumed by mistake.
                for name in (RunFile.CHECKPOINT, RunFile.UNFINISHED_HISTORY):
                    storage.remove(self.folder / name)
            self.config.write(self.folder / RunFile.UNFINISHED_CONFIG)
            yield


def prepare_run(
    dataset: str, output: str, config: Config, *, overwrite: bool, resume: bool
) -> PreparedRun | None:
    """Check that a run can be started or resumed, and read its checkpoint.

    If `resume` is set and the run is finished, a checkpoint that it left behind is deleted. No
    other file is changed.

    Args:
        dataset: Folder of the dataset.
        output: Folder of the run.
        config: Configuration.
        overwrite: Whether an existing run, finished or unfinished, may be replaced.
        resume: Whether to continue an unfinished run.

    Returns:
        The prepared run, or None if `resume` is set and the run is finished.

    Raises:
        DatasetError: The dataset's folder is not a dataset, is damaged or has no training rows, or
            the resumed run was started with a different dataset.
        ConfigError: The network or an option of it does not exist, a setting does not fit the
            dataset, or the resumed run was started with a different configuration.
        RunError: The checkpoint is damaged, or a teacher is not a finished run.
        StorageError: The folder holds a run that may not be replaced, or files that do not belong
            to a run.
    """
    stored_dataset, folder = StoredDataset.open(dataset), parse_path(output)
    for split in Split:
        stored_dataset.warn_about_single_class(split)
    config = complete_run_config(config, stored_dataset)
    if resume and is_finished(folder):
        _require_matching_finished_run(folder, config, stored_dataset)
        log.info("%s: the run has ended already", folder)
        # If a run is killed right after its publication, its checkpoint stays behind.
        storage.remove(folder / RunFile.CHECKPOINT)
        return None
    output_folder = OutputFolder(folder, RUN)
    # If the interrupted run was replacing a finished run, it was started with --overwrite.
    was_started = resume and output_folder.is_in_progress()
    checkpoint = read_run_checkpoint(folder) if resume else None
    if checkpoint is None:
        _require_writable_folder(folder, overwrite=overwrite or was_started)
    if checkpoint:
        resume_checks.require_unchanged_inputs(folder, checkpoint.state, config, stored_dataset)
        log.info("resuming after step %s", f"{checkpoint.state.step:,}")
    elif resume:
        log.info(
            "%s: no checkpoint found; starting from step 0 with %s", folder, stored_dataset.folder
        )
    settings_checks.require_trainable(config, stored_dataset)
    may_replace = overwrite or (was_started and output_folder.is_committed())
    return PreparedRun(stored_dataset, folder, config, checkpoint, may_replace)


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a finished run that no other run has begun to replace."""
    output_folder = OutputFolder(folder, RUN)
    return output_folder.is_committed() and not output_folder.is_in_progress()


def _require_matching_finished_run(folder: Path, config: Config, dataset: StoredDataset) -> None:
    """Check that a finished run was trained with the given configuration and dataset.

    Args:
        folder: Folder of the finished run.
        config: Configuration, completed with the settings of the dataset.
        dataset: Dataset to compare with.

    Raises:
        ConfigError: The run was trained with a different configuration, or its model has a
            different softmax temperature than is configured.
        DatasetError: The run was trained on a different dataset.
    """
    stored_config = load_stored_config(folder / CONFIG_FILE).to_dict()
    resume_checks.require_unchanged_config(folder, stored_config, config)
    model_info = trained_model.read_model_info(folder)
    if config.model.temperature not in (None, model_info.temperature):
        raise ConfigError(
            f"{folder}: the run ended with a temperature of {model_info.temperature:.6g};"
            " model.temperature can be set only before the end"
        )
    if model_info.dataset_checksum != dataset.checksum:
        raise DatasetError(
            f"{folder}: the run was trained on a different dataset (checksum"
            f" {model_info.dataset_checksum}, {dataset.folder} has {dataset.checksum})"
        )


def read_run_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in the folder of a run, or None if there is no checkpoint.

    Raises:
        RunError: The checkpoint is damaged.
    """
    path = folder / RunFile.CHECKPOINT
    return checkpoint_file.read_checkpoint(path) if storage.is_file(path) else None


def _require_writable_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that a new run may be written to a folder.

    Args:
        folder: Folder of the run.
        overwrite: Whether an existing run, finished or unfinished, may be replaced.

    Raises:
        StorageError: The folder holds a finished or unfinished run and `overwrite` is not set, or
            it holds files that do not belong to a run.
    """
    output_folder = OutputFolder(folder, RUN, overwrite=overwrite)
    has_checkpoint = storage.is_file(folder / RunFile.CHECKPOINT)
    if has_checkpoint and not overwrite and not output_folder.is_committed():
        raise StorageError(
            f"{folder}: holds an unfinished run; --resume continues it, --overwrite starts anew"
        )
    output_folder.ensure_writable()
