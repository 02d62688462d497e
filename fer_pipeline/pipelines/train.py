"""Training of a network on a dataset, in one process.

A run trains the network `training.restarts` times, each time from the same initial weights, with a
different sample order. Each of these trainings is a restart.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_pipeline.config import Config, load_stored_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import (
    CONFIG_FILE,
    RUN,
    TENSORBOARD_FOLDER,
    RunFile,
)
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.training import checkpoint as checkpoint_file
from fer_pipeline.learning.training import history, resume_checks
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loggers.console import ConsoleLogger
from fer_pipeline.learning.training.loggers.mlflow import MLflow
from fer_pipeline.learning.training.loggers.tensorboard import TensorBoard
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.publish_run import publish_run
from fer_pipeline.pipelines.run_config import complete_run_config

log = logging.getLogger(__name__)

_MLFLOW_ARTIFACTS = (
    RunFile.MODEL,
    RunFile.MODEL_INFO,
    CONFIG_FILE,
    RunFile.HISTORY,
    RunFile.ACCURACY_PLOT,
    RunFile.LOSS_PLOT,
)


def train(
    dataset: str, output: str, config: Config, *, overwrite: bool = False, resume: bool = False
) -> ModelInfo:
    """Train a network on a dataset, and write the files of the run.

    `model.json` is written last. A folder without it holds no finished run.

    Args:
        dataset: Folder of the dataset.
        output: Folder of the run.
        config: Configuration.
        overwrite: Whether an existing run, finished or unfinished, may be replaced.
        resume: Whether to continue an unfinished run. A finished run is not trained again. An
            unfinished run without a checkpoint starts at step 0.

    Returns:
        Description of the trained model, which is the content of `model.json`.

    Raises:
        DatasetError: The dataset's folder is not a dataset, is damaged or has no training rows, or
            the resumed run was started with a different dataset.
        ConfigError: The network or an option of it does not exist, or the resumed run was started
            with a different configuration.
        RunError: The loss or a weight is not finite, or the checkpoint is damaged.
        StorageError: The folder holds a run that may not be replaced, or files that do not belong
            to a run.
    """
    prepared = prepare_run(dataset, output, config, overwrite=overwrite, resume=resume)
    if prepared is None:
        return trained_model.read_model_info(parse_path(output))
    run = TrainingRun.build(prepared.dataset, prepared.folder, prepared.config, prepared.checkpoint)
    with add_resume_hint_to_interrupt(prepared.folder), prepared.lock_for_writing():
        run_training(run, prepared.checkpoint, is_resumed=resume)
    return trained_model.read_model_info(prepared.folder)


@contextlib.contextmanager
def add_resume_hint_to_interrupt(folder: Path) -> Iterator[None]:
    """Give a KeyboardInterrupt in the `with` block a message that says what --resume will do.

    Args:
        folder: Folder of the run.
    """
    try:
        yield
    except KeyboardInterrupt:
        hint = "--resume continues the run"
        if not storage.is_file(folder / RunFile.CHECKPOINT):
            hint = "there is no checkpoint yet, so --resume starts the run again"
        raise KeyboardInterrupt(hint) from None


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
        DatasetError: The dataset's folder is not a dataset or is damaged, or the resumed run was
            started with a different dataset.
        ConfigError: The resumed run was started with a different configuration.
        RunError: The checkpoint is damaged.
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


def run_training(run: TrainingRun, checkpoint: Checkpoint | None, *, is_resumed: bool) -> None:
    """Train a run to its end, write its files, and log it to MLflow if that is enabled.

    If there are several workers, each calls this function, but only the chief writes and logs.

    Args:
        run: Run to train.
        checkpoint: Checkpoint to resume from; None to start at step 0.
        is_resumed: Whether to continue the MLflow run that was opened for this run before, if any.

    Raises:
        RunError: The loss or a weight is not finite.
        StorageError: A file cannot be written.
    """
    checkpointer = run.make_checkpointer(checkpoint)
    if not run.worker.is_chief:
        _train_restarts(run, checkpointer, [])
        return
    with _open_mlflow(run, checkpointer.history, is_resumed=is_resumed) as mlflow:
        _train_restarts(run, checkpointer, [mlflow] if mlflow else [])
        model_info = publish_run(run, checkpointer)
        if mlflow:
            files = [run.folder / name for name in _MLFLOW_ARTIFACTS]
            mlflow.finish_run(model_info.best_class_accuracies, files)


def _train_restarts(
    run: TrainingRun, checkpointer: RunCheckpointer, loggers: Sequence[Any]
) -> None:
    """Train a run's remaining restarts.

    A run trains the network `training.restarts` times from the same initial weights. Each training
    is a restart.

    Args:
        run: Run to train.
        checkpointer: Checkpointer of the run, with the index of the restart to continue with.
        loggers: Callbacks other than the loggers for the console and TensorBoard. This function
            adds these two if the worker needs them.
    """
    if run.worker.world_size == 1:
        # If there are several workers, the Spark driver logs the validations.
        loggers = [ConsoleLogger(checkpointer.history), *loggers]
    if run.config.tracking.tensorboard and run.worker.is_chief:
        loggers = [*loggers, TensorBoard(run.folder / TENSORBOARD_FOLDER, checkpointer.history)]
    for restart in range(checkpointer.restart, run.config.training.restarts):
        if restart > checkpointer.restart:
            run.reset_to_initial_state()
        run.run_restart(checkpointer, restart, loggers)


@contextlib.contextmanager
def _open_mlflow(
    run: TrainingRun, run_history: History, *, is_resumed: bool
) -> Iterator[MLflow | None]:
    """Yield a callback that logs a run to MLflow, or None if MLflow is not enabled.

    If the `with` block raises an exception, the run is marked as failed in MLflow.

    Args:
        run: Run to log.
        run_history: History of the run, from which the metrics are logged.
        is_resumed: Whether to continue the MLflow run that was opened for this run before, if any.
    """
    if not run.config.tracking.mlflow.enabled:
        yield None
        return
    mlflow = MLflow(
        run.folder / RunFile.MLFLOW_RUN,
        run_history,
        run.config,
        name=run.folder.name,
        dataset_checksum=run.dataset.checksum,
        is_resumed=is_resumed,
    )
    try:
        yield mlflow
    except BaseException:
        mlflow.mark_run_failed()
        raise


def format_report(model_info: ModelInfo, output: str) -> str:
    """Return the report of the job: the history, the best validation, and the model's path.

    Args:
        model_info: Description of the trained model.
        output: Folder of the run.
    """
    folder = parse_path(output)
    entries = history.read_history(folder / RunFile.HISTORY)
    accuracy = (
        "not validated" if model_info.best_accuracy is None else f"{model_info.best_accuracy:.2%}"
    )
    best_step = f"step {model_info.best_step:,}"
    if any(row.restart for row in entries):
        best_step = f"restart {model_info.best_restart}, {best_step}"
    return "\n".join(
        [
            history.format_history(entries),
            "",
            f"{model_info.network}, {model_info.parameters:,} parameters; kept: {best_step},"
            f" validation accuracy {accuracy}; temperature {model_info.temperature:.3f}",
            f"model {folder / RunFile.MODEL}",
        ]
    )
