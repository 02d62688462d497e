"""Loaders for a worker's shard of the training and validation splits, as configured."""

from __future__ import annotations

import numpy as np

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.input.row_groups import Shard
from fer_pipeline.learning.input.transforms import make_train_transform
from fer_pipeline.learning.training.distributed import WorkerContext


def open_train_loader(
    dataset: StoredDataset, config: Config, worker: WorkerContext, restart: int = 0
) -> BatchLoader:
    """Return a loader of a worker's shard (its part) of the training split, with augmentation.

    The rows are shuffled in each epoch.

    Args:
        dataset: Dataset to read.
        config: The configuration.
        worker: Rank of this process and number of workers.
        restart: Index of the restart, from 0. A run can train its network several times from
            scratch, each time with a different order of the rows.

    Raises:
        DatasetError: The dataset is damaged, or the worker's shard has fewer rows than the epoch
            has batches.
    """
    options = LoaderOptions(
        batch_size=config.loader.batch_size,
        shuffle=True,
        seed=_derive_order_seed(config.seed, restart),
        deterministic=config.loader.deterministic,
        cache_in_memory=config.loader.cache_in_memory,
        shuffle_buffer=config.loader.shuffle_buffer,
        soft_labels=True,
        reader=config.loader.reader,
    )
    transform = make_train_transform(config.training, dataset.image_size, len(dataset.classes))
    shard = Shard(worker.rank, worker.world_size)
    return BatchLoader(dataset, Split.TRAIN, options, shard=shard, transform=transform)


def open_validation_loader(
    dataset: StoredDataset, config: Config, worker: WorkerContext
) -> BatchLoader:
    """Return a loader of a worker's shard (its part) of the validation split, in stored order.

    Args:
        dataset: Dataset to read.
        config: The configuration.
        worker: Rank of this process and number of workers.

    Raises:
        DatasetError: The dataset is damaged, or the split is empty.
    """
    options = LoaderOptions(
        batch_size=config.inference.batch_size,
        deterministic=config.loader.deterministic,
        cache_in_memory=config.loader.cache_in_memory,
        reader=config.loader.reader,
    )
    shard = Shard(worker.rank, worker.world_size)
    return BatchLoader(dataset, Split.VALIDATION, options, shard=shard)


def _derive_order_seed(seed: int, restart: int) -> int:
    """Return the seed of the row order in a restart of a run; `seed` itself for restart 0."""
    return int(np.random.SeedSequence([seed, restart]).generate_state(1)[0]) if restart else seed
