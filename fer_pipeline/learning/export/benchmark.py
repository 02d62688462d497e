"""Speed of a model's export formats with one CPU thread, as in a Spark worker.

`measure_speeds` starts this module as a program, so that the measurement has its own process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from fer_pipeline.errors import RunError
from fer_pipeline.learning.analysis.timing import measure_best_throughput
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8
from fer_pipeline.learning.inference.predictor import (
    Pixels,
    PredictFn,
    PredictorConfig,
    load_predict_fn,
)

KERAS: Final = "keras"
"""Name of the run's `model.keras` among the names of the export formats."""

# The batch size is not configurable, so that the speeds in all exports are comparable.
_BATCH_SIZE = 256  # images
# Shorter measurements vary too much.
_MIN_MEASUREMENT_SECONDS = 0.25


def measure_speeds(files: Mapping[str, Path], network: str, size: int) -> dict[str, float]:
    """Measure the images per second of each export format with one CPU thread.

    The measurement runs in a new process with one thread and without GPU, because the number of
    TensorFlow's threads can only be set before TensorFlow computes anything.

    Args:
        files: Path of the file or folder of each format, by name of the format. The key `keras` is
            required; its path is that of the original `model.keras`.
        network: Name of the network, as in the setting `model.name`.
        size: Height and width of the images, in pixels.

    Returns:
        Images per second of CPU time, by name of the format.

    Raises:
        RunError: The process failed.
    """
    paths = {name: str(path.resolve()) for name, path in files.items()}
    # Option -P prevents files in the working folder from shadowing modules.
    command = [sys.executable, "-P", "-m", __name__, json.dumps(paths), network, str(size)]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        last_line = process.stderr.strip().rpartition("\n")[2]
        reason = last_line or f"exit status {process.returncode}"
        raise RunError(f"{files[KERAS]}: its speed cannot be measured: {reason[:200]}")
    speeds: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return speeds


def measure_predict_fn_speeds(
    predict_fns: Mapping[str, PredictFn], pixels: Pixels
) -> dict[str, float]:
    """Measure how many images several predict functions process per second of CPU time.

    The CPU time of this process excludes other processes, but these still affect the caches and
    the clock rate. The functions are therefore measured alternately, and the best measurement of
    each function counts.

    Args:
        predict_fns: Functions that map pixels to class probabilities, by name.
        pixels: Images of one call, uint8 of shape (n, size, size).

    Returns:
        Images per second of CPU time, by name of the function.
    """

    def run_batch(predict_fn: PredictFn) -> int:
        """Call a predict function once with all images and return the number of images."""
        predict_fn(pixels)
        return len(pixels)

    batch_runners = {
        name: functools.partial(run_batch, predict_fn) for name, predict_fn in predict_fns.items()
    }
    return measure_best_throughput(batch_runners, time.process_time, _MIN_MEASUREMENT_SECONDS)


def _load_predict_fns(files: Mapping[str, Path], network: str, size: int) -> dict[str, PredictFn]:
    """Load the model of each format, and return predict functions that use one thread.

    `model.keras` and LiteRT files are loaded as in a Spark worker. `model.keras` is loaded first,
    because loading it sets the number of TensorFlow's threads.

    Args:
        files: Path of each format, by name of the format. The key `keras` is required.
        network: Name of the network, as in the setting `model.name`.
        size: Height and width of the images, in pixels.

    Returns:
        Functions that map pixels to class probabilities, by name of the format.
    """
    keras_config = PredictorConfig(KERAS, network, size, batch_size=_BATCH_SIZE, threads=1)
    litert_config = PredictorConfig("litert", network, size, batch_size=_BATCH_SIZE, threads=1)
    predict_fns = {KERAS: load_predict_fn(files[KERAS].read_bytes(), keras_config)}
    for name, path in files.items():
        if name in (LITERT, LITERT_INT8):
            predict_fns[name] = load_predict_fn(path.read_bytes(), litert_config)
        elif name != KERAS:
            predict_fns[name] = formats.EXPORT_FORMATS[name].load(path)
    return predict_fns


def _measure_and_print_speeds(files: str, network: str, size: str) -> None:
    """Measure the speed of each format in this process and print the speeds as a JSON object.

    The speeds are in images per second of CPU time. The arguments are strings, because they come
    from the command line.

    Args:
        files: JSON object with the path of each format, by name of the format.
        network: Name of the network, as in the setting `model.name`.
        size: Height and width of the images, in pixels.
    """
    paths = {name: Path(path) for name, path in json.loads(files).items()}
    images = formats.make_reference_images(int(size))
    pixels = images[np.arange(_BATCH_SIZE) % len(images)]
    print(
        json.dumps(measure_predict_fn_speeds(_load_predict_fns(paths, network, int(size)), pixels))
    )


if __name__ == "__main__":
    _measure_and_print_speeds(*sys.argv[1:])
