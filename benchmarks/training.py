"""Training steps a second from the feed, against the same steps from arrays in memory.

System A's network, batch 32, at 28x28: the fastest network there is here, and so the one for which
the feed matters most. The rounds of the two alternate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import data, preprocess
from fer_pipeline.data import manifest
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer

_BATCH, _STEPS, _AT_ONCE, _WARM_UP, _ROUNDS = 32, 1500, 10, 100, 3


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    folder = data.WORK / "dataset-28"
    if not folder.exists():
        preprocess.measure(data.csv(1), folder, "image.size=28")
    made = manifest.read(folder)
    network = registry.build_network("system_a", made.image.size, len(made.classes), {})
    model = serving_model.build_serving_model(network, made.image.size, made.image.normalization)
    trainer = Trainer(
        network, model, keras.optimizers.SGD(0.05), ClassificationLoss(len(made.classes))
    )
    feed: dict[bool, list[float]] = {False: [], True: []}
    limit = []
    for number in range(_ROUNDS):
        for cache, found in feed.items():
            found.append(_from_feed(trainer, folder, cache, number))
        limit.append(_from_arrays(trainer, folder))
    rows = []
    for cache, found in feed.items():
        shown = f"{max(found) / max(limit):.3f} ({max(found):,.0f} / {max(limit):,.0f} steps/s)"
        rows.append(
            (
                f"training, feed (cache_in_memory: {str(cache).lower()}) / arrays",
                shown,
                "at least 0.97",
            )
        )
    return rows


def _from_feed(trainer: Trainer, folder: Path, cache: bool, number: int) -> float:
    options = LoaderOptions(_BATCH, shuffle=True, seed=number, cache_in_memory=cache)
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, options)
    epoch = loader.open_epoch(0)
    return _timed(lambda count: trainer.train_steps(epoch.batches, tf.constant(count)))


def _from_arrays(trainer: Trainer, folder: Path) -> float:
    """The same steps on arrays that hold the normalised images, through `tf.data` as well."""
    options = LoaderOptions(_BATCH, shuffle=True)
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, options)
    parts = [(images.numpy(), labels.numpy()) for images, labels in loader.iterate_epoch(0)]
    arrays = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    batches = iter(tf.data.Dataset.from_tensor_slices(arrays).batch(_BATCH).repeat().prefetch(8))
    return _timed(lambda count: trainer.train_steps(batches, tf.constant(count)))


def _timed(run: Callable[[int], None]) -> float:
    run(_WARM_UP)
    began = time.perf_counter()
    for _ in range(_STEPS // _AT_ONCE):
        run(_AT_ONCE)
    return _STEPS / (time.perf_counter() - began)
