"""Training steps per second with the batch loader, compared with arrays in memory.

The benchmark trains system A's network at 28x28 pixels with batches of 32. It is the fastest
network of the package, so the speed of the loader matters most. The loader reads with petastorm or
with pyarrow, or keeps the images in memory. Each round measures all of them once; the ratios are
those of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import data, preprocess
from benchmarks.figure import Figure, describe_ratios
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer

_BATCH_SIZE = 32
_STEP_COUNT = 1500
_STEPS_PER_CALL = 10
_WARM_UP_STEP_COUNT = 100
_ROUNDS = 5
_LOADER_OPTIONS: dict[str, dict[str, Any]] = {
    "petastorm": {},
    "pyarrow": {"reader": "pyarrow"},
    "cache in memory": {"cache_in_memory": True},
}


def run() -> list[Figure]:
    """Measure the steps per second of loader and arrays, and return their ratios."""
    folder = data.WORK / "dataset-28"
    if not folder.exists():
        preprocess.run_job(data.ensure_csv(1), folder, "image.size=28")
    dataset = StoredDataset.open(folder)
    class_count = len(dataset.classes)
    normalization = dataset.manifest.image.normalization
    network = registry.build_network("system_a", dataset.image_size, class_count, {})
    model = serving_model.build_serving_model(network, dataset.image_size, normalization)
    loss = ClassificationLoss(class_count)
    trainer = Trainer(network, model, keras.optimizers.SGD(0.05), loss)
    loader_rates: dict[str, list[float]] = {name: [] for name in _LOADER_OPTIONS}
    array_rates = []
    for seed in range(_ROUNDS):
        array_rates.append(_measure_arrays(trainer, dataset))
        for name, rates in loader_rates.items():
            rates.append(_measure_loader(trainer, dataset, _LOADER_OPTIONS[name], seed))
    figures = []
    for name, rates in loader_rates.items():
        measurement = describe_ratios(rates, array_rates, "steps/s", decimals=3)
        figures.append(Figure(f"training, {name} / arrays", measurement, "at least 0.97"))
    return figures


def _measure_loader(
    trainer: Trainer, dataset: StoredDataset, options: Mapping[str, Any], seed: int
) -> float:
    """Return the steps per second with batches from the batch loader.

    Args:
        trainer: Trainer of the network.
        dataset: Dataset to train on.
        options: Options of the loader.
        seed: Seed of the order of the images.
    """
    loader_options = LoaderOptions(_BATCH_SIZE, shuffle=True, seed=seed, **options)
    loader = BatchLoader(dataset, Split.TRAIN, loader_options)
    epoch = loader.open_epoch(0)
    return _measure_rate(lambda count: trainer.train_on_batches(epoch.batches, tf.constant(count)))


def _measure_arrays(trainer: Trainer, dataset: StoredDataset) -> float:
    """Return the steps per second with batches of arrays of the normalised images.

    `tf.data` also delivers these batches.
    """
    options = LoaderOptions(_BATCH_SIZE, shuffle=True)
    loader = BatchLoader(dataset, Split.TRAIN, options)
    parts = [(images.numpy(), labels.numpy()) for images, labels in loader.iterate_epoch(0)]
    arrays = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    array_batches = tf.data.Dataset.from_tensor_slices(arrays).batch(_BATCH_SIZE)
    batches = iter(array_batches.repeat().prefetch(8))
    return _measure_rate(lambda count: trainer.train_on_batches(batches, tf.constant(count)))


def _measure_rate(run_steps: Callable[[int], None]) -> float:
    """Return the steps per second of a function that runs a number of training steps."""
    run_steps(_WARM_UP_STEP_COUNT)
    start = time.perf_counter()
    for _ in range(_STEP_COUNT // _STEPS_PER_CALL):
        run_steps(_STEPS_PER_CALL)
    return _STEP_COUNT / (time.perf_counter() - start)
