"""Throughput of models, which take turns so that other load on the machine slows all of them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import keras
import numpy as np
import numpy.typing as npt

Name = TypeVar("Name", str, int)

_MEASUREMENTS_PER_MODEL = 5
# Shorter turns would measure luck more than speed.
_MIN_MEASUREMENT_SECONDS = 0.5


def measure_best_throughput(
    models: Mapping[Name, Callable[[], int]],
    clock: Callable[[], float],
    turn_seconds: float,
) -> dict[Name, float]:
    """Measure the images per second of several models, after a call of each that warms it up.

    Args:
        models: For each model a function that runs one batch and returns the number of its images.
        clock: Returns the time, in seconds.
        turn_seconds: Minimum duration of a turn; it has at least one batch.

    Returns:
        Images per second of each model, the best of its five turns.
    """
    for run_batch in models.values():
        run_batch()
    turns = [
        {
            name: _measure_throughput(run_batch, clock, turn_seconds)
            for name, run_batch in models.items()
        }
        for _ in range(_MEASUREMENTS_PER_MODEL)
    ]
    return {name: max(turn[name] for turn in turns) for name in models}


def _measure_throughput(
    run_batch: Callable[[], int], clock: Callable[[], float], turn_seconds: float
) -> float:
    images, elapsed, start = 0, 0.0, clock()
    while not images or elapsed < turn_seconds:
        images += run_batch()
        elapsed = clock() - start
    return images / elapsed


def measure_images_per_second(
    models: Sequence[keras.Model], pixels: Sequence[npt.NDArray[np.uint8]], batch_size: int
) -> list[float]:
    """Measure how many images per second Keras models process on this machine under its load.

    Only forward passes are timed, on pixels in memory. A turn takes half a second, or a batch if
    that takes longer.

    Args:
        models: Models from raw pixels to probabilities, as `TrainedModel.load_network` returns.
        pixels: Images for each of them: uint8 of shape (n, size, size), n at least 1.
        batch_size: Images in a forward pass, or all if there are fewer. A smaller last batch is
            left out.

    Returns:
        Images per second of each model.
    """
    runs = {
        number: _make_batch_runner(model, images, batch_size)
        for number, (model, images) in enumerate(zip(models, pixels, strict=True))
    }
    return list(measure_best_throughput(runs, time.perf_counter, _MIN_MEASUREMENT_SECONDS).values())


def _make_batch_runner(
    model: keras.Model, pixels: npt.NDArray[np.uint8], batch_size: int
) -> Callable[[], int]:
    """Return a function that runs the next batch of the pixels, in a cycle."""
    # A smaller last batch would make TensorFlow trace the model again.
    size = min(batch_size, len(pixels))
    starts = range(0, len(pixels) - size + 1, size)
    batches = itertools.cycle([pixels[start : start + size, :, :, None] for start in starts])

    def run_batch() -> int:
        model.predict_on_batch(next(batches))
        return size

    return run_batch


def count_available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
