"""Training of a network on a dataset, with several workers on the machines of a Spark cluster.

The workers are the tasks of one barrier stage of Spark. Worker 0, the chief, also writes the files
of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.pipelines.prepare_run import is_finished, prepare_run
from fer_pipeline.pipelines.train import add_resume_hint_to_interrupt

if TYPE_CHECKING:
    from fer_pipeline.spark.session import SparkSession


@dataclass(frozen=True)
class WorkerPool:
    """The number of workers of a distributed training, and the Spark session that starts them.

    Attributes:
        open_session: Function that returns the context manager of a Spark session for barrier
            tasks. It is called only after the run has passed all checks.
        count: Number of workers.
    """

    open_session: Callable[[], AbstractContextManager[SparkSession]]
    count: int


def train_distributed(
    dataset: str,
    output: str,
    config: Config,
    workers: WorkerPool,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> ModelInfo:
    """Train a network with several workers, and log the metrics at each validation.

    Args:
        dataset: Folder of the dataset, which all machines share.
        output: Folder of the run, which all machines share.
        config: Configuration.
        workers: Number of workers, and the Spark session that starts them.
        overwrite: Whether an existing run, finished or unfinished, may be replaced.
        resume: Whether to continue an unfinished run, even if a different number of workers
            started it.

    Returns:
        Description of the trained model.

    Raises:
        ConfigError: The MLflow store would be a local file of one worker's machine, a batch has
            fewer rows than there are workers, the network or an option of it does not exist, or the
            resumed run was started with a different configuration.
        ClusterError: Spark does not start the workers, or the workers do not reach each other.
        WorkerLostError: Workers disappeared too often.
        DatasetError: The dataset's folder is not a dataset, is damaged or has no training rows, or
            the resumed run was started with a different dataset.
        RunError: The loss or a weight is not finite, or the checkpoint is damaged.
        StorageError: The folder holds a run that may not be replaced, or files that do not belong
            to a run, or not all machines share the folder.
    """
    _check_distributed_config(config, workers.count)
    prepared = prepare_run(dataset, output, config, overwrite=overwrite, resume=resume)
    folder = parse_path(output)
    if prepared is None:
        return trained_model.read_model_info(folder)
    # This imports Spark and TensorFlow, which takes seconds.
    from fer_pipeline.pipelines import run_workers

    with (
        add_resume_hint_to_interrupt(folder),
        workers.open_session() as session,
        prepared.lock_for_writing(),
    ):
        run_workers.run_workers(session, workers.count, prepared, is_resumed=resume)
    if not is_finished(folder):
        raise StorageError(
            f"{folder}: the workers wrote a run that this machine does not see; on a cluster the"
            " output must be a folder that all machines share"
        )
    return trained_model.read_model_info(folder)


def _check_distributed_config(config: Config, worker_count: int) -> None:
    """Check that a configuration can be used with several workers.

    Raises:
        ConfigError: The MLflow store would be a local file, or the batch size is too small.
    """
    mlflow = config.tracking.mlflow
    if mlflow.enabled and not mlflow.uri:
        raise ConfigError(
            "tracking.mlflow.uri: with --workers, MLflow needs a store that all machines reach; by"
            " default it is a file in the folder of the worker that writes"
        )
    if config.loader.batch_size < worker_count:
        raise ConfigError(
            f"loader.batch_size: is {config.loader.batch_size}, and each of {worker_count} workers"
            " needs a row of every batch; set a larger one, or use fewer workers"
        )
