"""Training of a prepared run to its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from fer_pipeline.io.output_kinds import CONFIG_FILE, TENSORBOARD_FOLDER, RunFile
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.checkpointer import RunCheckpointer
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loggers.console import ConsoleLogger
from fer_pipeline.learning.training.loggers.mlflow import MLflow
from fer_pipeline.learning.training.loggers.tensorboard import TensorBoard
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.prepare_run import PreparedRun
from fer_pipeline.pipelines.publish_run import publish_run

_MLFLOW_ARTIFACTS = (
    RunFile.MODEL,
    RunFile.MODEL_INFO,
    CONFIG_FILE,
    RunFile.HISTORY,
    RunFile.ACCURACY_PLOT,
    RunFile.LOSS_PLOT,
)


def build_run(prepared: PreparedRun) -> TrainingRun:
    """Build the network and its trainer, and open the inputs, for a process that trains alone.

    Raises:
        DatasetError: The dataset is damaged.
        ConfigError: The network cannot be built, or a setting does not fit the dataset.
        RunError: A custom network cannot be saved or loaded again, or a teacher cannot be loaded.
    """
    return TrainingRun.build(
        prepared.dataset, prepared.folder, prepared.config, prepared.checkpoint
    )


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
