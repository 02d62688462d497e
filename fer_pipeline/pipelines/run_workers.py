"""The workers of a distributed training, and their start and supervision by the Spark driver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from fer_pipeline import errors
from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import FerError, StorageError, WorkerLostError
from fer_pipeline.io import storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import RUN, RunFile
from fer_pipeline.learning.training import distributed
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.distributed import WorkerContext
from fer_pipeline.learning.training.loggers import history_tail
from fer_pipeline.learning.training.split_loaders import open_train_loader
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.prepare_run import PreparedRun, is_finished, read_run_checkpoint
from fer_pipeline.pipelines.run_training import run_training
from fer_pipeline.spark import barrier
from fer_pipeline.spark.barrier import BarrierTask
from fer_pipeline.spark.session import SparkSession

T = TypeVar("T")


class _RunStatus(StrEnum):
    """Status of a run, as a worker sees it in the folder of the run."""

    FINISHED = "finished"
    STARTED = "started"
    ABSENT = "absent"


def run_workers(
    session: SparkSession, worker_count: int, prepared: PreparedRun, *, is_resumed: bool
) -> None:
    """Train a prepared run in a barrier stage, and log each validation on the driver.

    A barrier stage is a Spark stage whose tasks all run at the same time; each task is a worker.

    Args:
        session: Spark session for barrier tasks.
        worker_count: Number of workers.
        prepared: Run to train.
        is_resumed: Whether the run was started before this job.
    """
    folder = prepared.folder
    train_worker = functools.partial(
        _train_worker,
        prepared.dataset.folder.absolute(),
        folder.absolute(),
        prepared.config,
        is_resumed,
    )
    known_entry_count = len(prepared.checkpoint.state.entries) if prepared.checkpoint else 0
    with history_tail.tail_history(
        folder / RunFile.UNFINISHED_HISTORY, folder / RunFile.HISTORY, known_entry_count
    ):
        barrier.run_barrier_stage(
            session, worker_count, train_worker, lambda: _count_history_lines(folder)
        )


def _train_worker(
    dataset_folder: Path, folder: Path, config: Config, is_resumed: bool, task: BarrierTask
) -> None:
    """Train the network of a run as one of several workers; the chief also writes the run's files.

    If a worker is lost, the driver starts all workers again (`barrier.run_barrier_stage`), and they
    resume from the last checkpoint.

    Args:
        dataset_folder: Folder of the dataset.
        folder: Folder of the run.
        config: Configuration of the run.
        is_resumed: Whether the run was started before this job.
        task: Spark task of the worker.

    Raises:
        StorageError: This machine does not see the run that the driver started.
        WorkerLostError: Another worker no longer answers, or the workers have read different
            checkpoints.
        FerError: The dataset, the configuration or the checkpoint of the run cannot be used, or the
            loss or a weight is not finite.
    """
    statuses = task.all_gather(_read_run_status(folder))
    if _RunStatus.FINISHED in statuses:
        return
    if _RunStatus.ABSENT in statuses:
        raise StorageError(
            f"{folder}: worker {statuses.index(_RunStatus.ABSENT)} does not see the run that was"
            " started there; on a cluster the output must be a folder that all machines share"
        )
    worker = WorkerContext(task.number, len(task.addresses))
    with distributed.translate_worker_failures(task.number):
        distributed.connect_to_workers(task.addresses, task.number, task.cores)
        checkpoint = _load_in_all_workers(task, lambda: read_run_checkpoint(folder))
        _require_same_checkpoint(task, checkpoint, folder)
        dataset = StoredDataset.open(dataset_folder)
        # If one worker cannot read its part of the rows, all workers have to stop before they wait
        # for each other.
        _load_in_all_workers(task, lambda: open_train_loader(dataset, config, worker))
        run = TrainingRun.build(dataset, folder, config, checkpoint, worker)
        run_training(run, checkpoint, is_resumed=is_resumed or checkpoint is not None)
    # Wait until the chief has published the run. If it fails, the driver starts all workers again.
    task.all_gather("")


def _count_history_lines(folder: Path) -> int:
    """Return the number of lines in the history of an unfinished run, or 0 without a history.

    Each validation adds one line; the first line is the header.
    """
    path = folder / RunFile.UNFINISHED_HISTORY
    return storage.read_text(path).count("\n") if storage.is_file(path) else 0


def _read_run_status(folder: Path) -> _RunStatus:
    """Return whether the run in a folder is finished, was only started, or is absent.

    If a new run has begun to replace a finished one, the status is that of the new run: started.
    """
    if is_finished(folder):
        return _RunStatus.FINISHED
    if OutputFolder(folder, RUN).is_in_progress():
        return _RunStatus.STARTED
    return _RunStatus.ABSENT


def _require_same_checkpoint(
    task: BarrierTask, checkpoint: Checkpoint | None, folder: Path
) -> None:
    """Check that all workers have read the same checkpoint.

    All workers must call this function. The checkpoints can differ, because a worker that Spark
    considers lost may still be running and writing a checkpoint.

    Args:
        task: Spark task of the worker.
        checkpoint: Checkpoint that the worker has read; None if there was none.
        folder: Folder of the run, for the error message.

    Raises:
        WorkerLostError: The checkpoints have different training steps.
    """
    step = str(checkpoint.state.step) if checkpoint else ""
    if len(set(task.all_gather(step))) > 1:
        path = folder / RunFile.CHECKPOINT
        raise WorkerLostError(f"{path}: changed while it was read; the workers start again")


def _load_in_all_workers(task: BarrierTask, load: Callable[[], T]) -> T:
    """Call `load` and return its result; if it raises a FerError in one worker, raise it in all.

    Each worker must call `_load_in_all_workers`, and waits there for the others.

    Args:
        task: Spark task of this worker.
        load: Function to call.

    Raises:
        FerError: `load` raised this error in this worker or in another one.
    """
    try:
        loaded = load()
    except FerError as error:
        task.all_gather(f"{type(error).__name__} {error}")
        raise
    first_error = next(filter(None, task.all_gather("")), None)
    if first_error:
        class_name, _, message = first_error.partition(" ")
        raise getattr(errors, class_name)(message)
    return loaded
