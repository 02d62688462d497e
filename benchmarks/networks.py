"""Images per second of all networks, in training and in batch inference, on random images.

Each network runs in the precision that `auto` selects on the current machine. Random images are
used because the time does not depend on the content of the images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.figure import Figure
from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.learning.analysis import network_summary
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training import optimizers, precision
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer

_IMAGE_SIZES = {"system_a": 28, "mini_xception": 64}  # pixels
_DEFAULT_IMAGE_SIZE = 48
_BATCH_SIZE = 128
_SECONDS = 4.0
_WARM_UP_BATCHES = 2


def run() -> list[Figure]:
    """Measure all networks, and return their images per second."""
    return [figure for name in registry.list_network_names() for figure in _measure_network(name)]


def _measure_network(name: str) -> Iterator[Figure]:
    """Measure training and inference of a network."""
    size, class_count = _IMAGE_SIZES.get(name, _DEFAULT_IMAGE_SIZE), len(FER2013)
    policy = precision.resolve_precision("auto")
    with precision.use_precision(policy):
        network = registry.build_network(name, size, class_count, {})
    model = serving_model.build_serving_model(network, size, Normalization.centered())
    multiply_adds = network_summary.summarize_network(network).multiply_adds / 1e6
    title = f"{name}, {size}x{size}, {multiply_adds:.1f} M multiply-adds"
    unit = f"images/s ({policy}, batches of {_BATCH_SIZE})"
    training_rate = _measure_rate(_make_train_step(network, model, size, class_count))
    yield Figure(f"{title}: training", f"{training_rate:,.0f} {unit}")
    inference_rate = _measure_rate(_make_inference_step(model, size))
    yield Figure(f"{title}: inference", f"{inference_rate:,.0f} {unit}")


def _make_train_step(network: Any, model: Any, size: int, class_count: int) -> Callable[[], None]:
    """Return a function that trains one batch.

    Args:
        network: Network without normalisation.
        model: Model that contains the network and the normalisation.
        size: Height and width of the images, in pixels.
        class_count: Number of classes.
    """
    optimizer = optimizers.make_optimizer(OptimizerConfig(), ScheduleConfig(), 1, 1)
    trainer = Trainer(network, model, optimizer, ClassificationLoss(class_count))
    images = tf.random.normal((_BATCH_SIZE, size, size, 1))
    labels = tf.random.uniform((_BATCH_SIZE,), 0, class_count, tf.int32)
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    return lambda: trainer.train_on_batches(batches, tf.constant(1))


def _make_inference_step(model: keras.Model, size: int) -> Callable[[], None]:
    """Return a function that predicts one batch of images of the given height and width."""
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH_SIZE, size, size, 1), np.uint8)
    return lambda: model.predict_on_batch(pixels)


def _measure_rate(run_batch: Callable[[], None]) -> float:
    """Return the images per second, measured for `_SECONDS`.

    Args:
        run_batch: Function that processes one batch.
    """
    for _ in range(_WARM_UP_BATCHES):
        run_batch()
    batch_count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS:
        run_batch()
        batch_count += 1
    return _BATCH_SIZE * batch_count / seconds
