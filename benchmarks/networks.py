"""Images a second of every network, in training and in batch inference, on random images.

Each in the precision that `auto` finds on this machine. What a network does costs what it costs
whatever the images show, so nothing is read from disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig
from fer_pipeline.emotions import FER2013
from fer_pipeline.learning import networks
from fer_pipeline.learning.model import bundle
from fer_pipeline.learning.model import summary as network_summary
from fer_pipeline.learning.training import optimization, precision
from fer_pipeline.learning.training.objective import Objective
from fer_pipeline.learning.training.trainer import Trainer
from fer_pipeline.pixels import Normalization

_SIZES = {"system_a": 28, "mini_xception": 64}
_BATCH, _SECONDS, _WARM_UP = 128, 4.0, 2


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    return [row for name in networks.names() for row in _measured(name)]


def _measured(name: str) -> Iterator[tuple[str, str, str]]:
    size, classes = _SIZES.get(name, 48), len(FER2013)
    computed = precision.resolve("auto")
    with precision.policy(computed):
        network = networks.build(name, size, classes, {})
    model = bundle.servable(network, size, Normalization.centered())
    cost = network_summary.describe(network).multiply_adds / 1e6
    about = f"{name}, {size}x{size}, {cost:.1f} M multiply-adds"
    suffix = f"images/s ({computed}, batches of {_BATCH})"
    trained = _rate(_training(network, model, size, classes))
    yield f"{about}: training", f"{trained:,.0f} {suffix}", ""
    inferred = _rate(_inference(model, size))
    yield f"{about}: inference", f"{inferred:,.0f} {suffix}", ""


def _training(network: Any, model: Any, size: int, classes: int) -> Callable[[], None]:
    optimizer = optimization.make_optimizer(OptimizerConfig(), ScheduleConfig(), 1, 1)
    trainer = Trainer(network, model, optimizer, Objective(classes))
    images = tf.random.normal((_BATCH, size, size, 1))
    labels = tf.random.uniform((_BATCH,), 0, classes, tf.int32)
    batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    return lambda: trainer.train_steps(batches, tf.constant(1))


def _inference(model: keras.Model, size: int) -> Callable[[], None]:
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, size, size, 1), np.uint8)
    return lambda: model.predict_on_batch(pixels)


def _rate(batch: Callable[[], None]) -> float:
    """Images a second, over some seconds and one batch at least."""
    for _ in range(_WARM_UP):
        batch()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _SECONDS:
        batch()
        count += 1
    return _BATCH * count / passed
