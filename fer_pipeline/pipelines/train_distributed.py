"""From a dataset to a trained model, with several workers on the machines of a Spark cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from fer_pipeline import errors
from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError, FerError, StorageError, WorkerLostError
from fer_pipeline.io import storage
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import RUN, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.training import checkpoint, distributed
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.distributed import WorkerContext
from fer_pipeline.learning.training.loggers import history_tail
from fer_pipeline.learning.training.split_loaders import open_train_loader
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.train import (
    is_finished,
    prepare_run,
    run_training,
    with_resume_hint,
)
from fer_pipeline.spark import barrier
from fer_pipeline.spark.barrier import BarrierTask
from fer_pipeline.spark.session import SparkSession

T = TypeVar("T")


def train_distributed(
    opened: AbstractContextManager[SparkSession],
    count: int,
    dataset: str,
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> ModelInfo:
    """Trains a network with several workers, and tells each round that they finish.

    Args:
        opened: Gives a session for barriers, once it is known that the run may begin.
        count: How many workers.
        dataset: The dataset's folder, which all machines share.
        output: The run's folder, which all machines share.
        config: The configuration.
        overwrite: As for `train`.
        resume: As for `train`; another number of workers may have begun the run.

    Returns:
        What the finished run says of its model.

    Raises:
        ConfigError: The run's MLflow is in a folder of one worker's machine, or a batch has fewer
            rows than there are workers.
        ClusterError: The workers cannot be had, or cannot reach each other.
        WorkerLostError: Workers were lost too often.
        FerError: As for `train`.
    """
    if config.tracking.mlflow.enabled and not config.tracking.mlflow.uri:
        raise ConfigError(
            "tracking.mlflow.uri: with --workers, MLflow needs one that all machines reach: by"
            " default it is a file in the folder of the worker that writes"
        )
    if config.loader.batch_size < count:
        raise ConfigError(
            f"loader.batch_size: is {config.loader.batch_size}, and each of {count} workers needs a"
            " row of every batch; set a larger one, or take fewer workers"
        )
    begun = prepare_run(dataset, output, config, overwrite=overwrite, resume=resume)
    folder = parse_path(output)
    if not begun:
        return trained_model.read_model_info(folder)
    part = functools.partial(
        _take_part, begun.dataset.folder.absolute(), folder.absolute(), begun.config, resume
    )
    known = len(begun.found.state.rounds) if begun.found else 0
    with (
        with_resume_hint(),
        opened as session,
        begun.writing(),
        history_tail.tail_history(
            folder / RunFile.UNFINISHED_HISTORY, folder / RunFile.HISTORY, known
        ),
    ):
        barrier.run(session, count, part, lambda: _rounds_so_far(folder))
    if not is_finished(folder):
        raise StorageError(
            f"{folder}: the workers wrote a run that is not there; on a cluster the output must be"
            " a folder that all machines share"
        )
    return trained_model.read_model_info(folder)


def _take_part(
    data: Path, folder: Path, config: Config, resumed: bool, member: BarrierTask
) -> None:
    """What each worker does: it trains its part, and the first one writes the run.

    Where one was lost, all of them come here again and go on from the last checkpoint.
    """
    states = member.all_gather(_state(folder))
    if _FINISHED in states:
        return
    if _ABSENT in states:
        raise StorageError(
            f"{folder}: worker {states.index(_ABSENT)} does not see what was begun there; on a"
            " cluster the output must be a folder that all machines share"
        )
    worker = WorkerContext(member.number, len(member.addresses))
    with distributed.worker_failures(member.number):
        distributed.init_distributed(member.addresses, member.number, member.cores)
        found = _agreed(member, lambda: _checkpoint(folder))
        _require_the_same(member, found, folder)
        dataset = StoredDataset.open(data)
        # What is wrong with one worker's part is wrong for all, before they wait for each other.
        _agreed(member, lambda: open_train_loader(dataset, config, worker))
        plan = TrainingRun.build(dataset, folder, config, found, worker)
        run_training(plan, found, resumed=resumed or found is not None)
    # Until the first one has written the run, it may need the others to make it again.
    member.all_gather("")


def _rounds_so_far(folder: Path) -> int:
    path = folder / RunFile.UNFINISHED_HISTORY
    return storage.read_text(path).count("\n") if storage.is_file(path) else 0


_FINISHED, _BEGUN, _ABSENT = "finished", "begun", "absent"


def _state(folder: Path) -> str:
    """How a worker sees the run."""
    if is_finished(folder):
        return _FINISHED
    return _BEGUN if OutputFolder(folder, RUN).is_in_progress() else _ABSENT


def _checkpoint(folder: Path) -> Checkpoint | None:
    path = folder / RunFile.CHECKPOINT
    return checkpoint.read_checkpoint(path) if storage.is_file(path) else None


def _require_the_same(member: BarrierTask, found: Checkpoint | None, folder: Path) -> None:
    """All workers have read the same checkpoint: one that was lost may still have been writing."""
    if len({*member.all_gather(str(found.state.step) if found else "")}) > 1:
        path = folder / RunFile.CHECKPOINT
        raise WorkerLostError(f"{path}: changed while it was read; the workers begin again")


def _agreed(member: BarrierTask, make: Callable[[], T]) -> T:
    """What each worker makes for itself; where one fails, all fail with its error."""
    try:
        made = make()
    except FerError as error:
        member.all_gather(f"{type(error).__name__} {error}")
        raise
    first = next(filter(None, member.all_gather("")), None)
    if first:
        kind, _, message = first.partition(" ")
        raise getattr(errors, kind)(message)
    return made
