"""From a dataset to a trained model, with several workers on the machines of a Spark cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from fer_pipeline import errors, manifest, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, FerError, StorageError, WorkerLostError
from fer_pipeline.learning.model import run_folder
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.learning.training import checkpoint, following, workers
from fer_pipeline.learning.training.checkpoint import Checkpoint
from fer_pipeline.learning.training.plan import HISTORY_SO_FAR, Plan, open_train
from fer_pipeline.learning.training.workers import Workers
from fer_pipeline.spark import barrier
from fer_pipeline.spark.barrier import Member
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.stages.train import HISTORY, begin, can_be_resumed, is_finished, perform

T = TypeVar("T")


def train_together(
    opened: AbstractContextManager[SparkSession],
    count: int,
    dataset: str,
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> RunInfo:
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
    begun = begin(dataset, output, config, overwrite=overwrite, resume=resume)
    folder = storage.path(output)
    if not begun:
        return run_folder.read(folder)
    part = functools.partial(
        _take_part, begun.data.absolute(), folder.absolute(), begun.config, resume
    )
    known = len(begun.found.notes["rounds"]) if begun.found else 0
    with (
        can_be_resumed(),
        opened as session,
        begun.writing(),
        following.told(folder / HISTORY_SO_FAR, folder / HISTORY, known),
    ):
        barrier.run(session, count, part, lambda: _rounds_so_far(folder))
    if not is_finished(folder):
        raise StorageError(
            f"{folder}: the workers wrote a run that is not there; on a cluster the output must be"
            " a folder that all machines share"
        )
    return run_folder.read(folder)


def _take_part(data: Path, folder: Path, config: Config, resumed: bool, member: Member) -> None:
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
    worker = Workers(member.number, len(member.addresses))
    with workers.losses(member.number):
        workers.join(member.addresses, member.number, member.cores)
        found = _agreed(member, lambda: _checkpoint(folder))
        _require_the_same(member, found, folder)
        made = manifest.read(data)
        # What is wrong with one worker's part is wrong for all, before they wait for each other.
        _agreed(member, lambda: open_train(data, made, config, worker))
        plan = Plan.make(data, folder, made, config, found, worker)
        perform(plan, found, resumed=resumed or found is not None)
    # Until the first one has written the run, it may need the others to make it again.
    member.all_gather("")


def _rounds_so_far(folder: Path) -> int:
    path = folder / HISTORY_SO_FAR
    return storage.read_text(path).count("\n") if storage.is_file(path) else 0


_FINISHED, _BEGUN, _ABSENT = "finished", "begun", "absent"


def _state(folder: Path) -> str:
    """How a worker sees the run."""
    if is_finished(folder):
        return _FINISHED
    return _BEGUN if storage.exists(folder / publication.BEGUN) else _ABSENT


def _checkpoint(folder: Path) -> Checkpoint | None:
    path = folder / checkpoint.NAME
    return checkpoint.read(path) if storage.is_file(path) else None


def _require_the_same(member: Member, found: Checkpoint | None, folder: Path) -> None:
    """All workers have read the same checkpoint: one that was lost may still have been writing."""
    if len({*member.all_gather(str(found.notes["step"]) if found else "")}) > 1:
        path = folder / checkpoint.NAME
        raise WorkerLostError(f"{path}: changed while it was read; the workers begin again")


def _agreed(member: Member, make: Callable[[], T]) -> T:
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
