"""Throughput of models in images per second.

The models are measured alternately, so that other load on the machine slows down all of them.
"""

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
# Shorter measurements vary too much.
_MIN_MEASUREMENT_SECONDS = 0.5


def measure_best_throughput(
    models: Mapping[Name, Callable[[], int]],
    clock: Callable[[], float],
    min_seconds: float,
) -> dict[Name, float]:
    """Measure the images per second of several models: the best of five measurements of each.

    Each model first runs one batch to warm up. Then the models are measured in turn, five times.

    Args:
        models: Functions by name of the model. Each one runs its model on one batch and returns
            the number of images in the batch.
        clock: Function that returns the current time, in seconds.
        min_seconds: Minimum duration of a measurement; a measurement has at least one batch.

    Returns:
        Images per second of the best measurement, by name of the model.
    """
    for run_batch in models.values():
        run_batch()
    measurements = [
        {
            name: _measure_throughput(run_batch, clock, min_seconds)
            for name, run_batch in models.items()
        }
        for _ in range(_MEASUREMENTS_PER_MODEL)
    ]
    return {name: max(throughputs[name] for throughputs in measurements) for name in models}


def _measure_throughput(
    run_batch: Callable[[], int], clock: Callable[[], float], min_seconds: float
) -> float:
    """Run a model on batches for at least `min_seconds` and return the images per second.

    Args:
        run_batch: Function that runs the model on one batch and returns its number of images.
        clock: Function that returns the current time, in seconds.
        min_seconds: Minimum duration; at least one batch is run.
    """
    image_count, elapsed, start = 0, 0.0, clock()
    while not image_count or elapsed < min_seconds:
        image_count += run_batch()
        elapsed = clock() - start
    return image_count / elapsed


def measure_images_per_second(
    models: Sequence[keras.Model], pixels: Sequence[npt.NDArray[np.uint8]], batch_size: int
) -> list[float]:
    """Measure the images per second of Keras models on this machine.

    Only forward passes are timed, on pixels in memory. After one warm-up batch, each model is
    measured five times, in turn with the other models. A measurement takes half a second, or one
    batch if a batch takes longer.

    Args:
        models: Models that map raw pixels to probabilities, from `TrainedModel.load_network`.
        pixels: Images for each model: uint8 of shape (n, size, size), with n of at least 1.
        batch_size: Number of images in a forward pass; all images if there are fewer. An incomplete
            last batch is left out.

    Returns:
        Images per second of each model: the best of its measurements.
    """
    batch_runners = {
        number: _make_batch_runner(model, images, batch_size)
        for number, (model, images) in enumerate(zip(models, pixels, strict=True))
    }
    return list(
        measure_best_throughput(batch_runners, time.perf_counter, _MIN_MEASUREMENT_SECONDS).values()
    )


def _make_batch_runner(
    model: keras.Model, pixels: npt.NDArray[np.uint8], batch_size: int
) -> Callable[[], int]:
    """Return a function that runs a model on the next batch and returns the number of its images.

    After the last batch, the function continues with the first one. An incomplete last batch is
    left out.

    Args:
        model: Model that maps raw pixels to probabilities.
        pixels: Images, uint8 of shape (n, size, size), with n of at least 1.
        batch_size: Number of images in a batch; all images if there are fewer.
    """
    # A smaller last batch would make TensorFlow trace the model again.
    image_count = min(batch_size, len(pixels))
    starts = range(0, len(pixels) - image_count + 1, image_count)
    batches = itertools.cycle([pixels[start : start + image_count, :, :, None] for start in starts])

    def run_batch() -> int:
        """Run the model on the next batch and return the number of its images."""
        model.predict_on_batch(next(batches))
        return image_count

    return run_batch


def count_available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
