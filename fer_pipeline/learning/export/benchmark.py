"""Speed of a model's export formats in a Spark worker, which has one thread.

Run as a program, this module measures in a process of its own.
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
"""Name of the run's own `model.keras`, beside the keys of `output_kinds.EXPORT_FILES`."""

# Fixed, not configured: all later users of an export rely on the speeds in its description.
_BATCH_SIZE = 256  # images
# Shorter turns would measure luck more than speed.
_MIN_MEASUREMENT_SECONDS = 0.25


def measure_speeds(files: Mapping[str, Path], network: str, size: int) -> dict[str, float]:
    """Measure the images per second of each format on one core, as a Spark worker runs it.

    It measures in a new process, because the number of TensorFlow's threads can only be set before
    TensorFlow computes anything. The process has one thread and sees no GPU.

    Args:
        files: File or folder of each format; `keras` is one of the names.
        network: Name of the network in the configuration.
        size: Side of the images, in pixels.

    Returns:
        Images per second, by the same names.

    Raises:
        RunError: The process failed.
    """
    paths = {name: str(path.resolve()) for name, path in files.items()}
    # With -P, no file in the working folder can shadow a module.
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


def time_predict_fns(predict_fns: Mapping[str, PredictFn], pixels: Pixels) -> dict[str, float]:
    """Measure the images per second of this process's CPU time of several predict functions.

    CPU time excludes other processes on the machine, which still slow down the caches and the
    clock; so the functions take turns, and the best turn of each counts.

    Args:
        predict_fns: Functions from pixels to probabilities, by name.
        pixels: Images of one call, uint8 of shape (n, size, size).
    """

    def run(predict_fn: PredictFn) -> int:
        predict_fn(pixels)
        return len(pixels)

    runs = {name: functools.partial(run, predict_fn) for name, predict_fn in predict_fns.items()}
    return measure_best_throughput(runs, time.process_time, _MIN_MEASUREMENT_SECONDS)


def _load_formats(files: Mapping[str, Path], network: str, size: int) -> dict[str, PredictFn]:
    """Load the formats as a worker does; Keras first, which sets TensorFlow's threads."""
    keras_config = PredictorConfig(KERAS, network, size, batch_size=_BATCH_SIZE, threads=1)
    litert_config = PredictorConfig("litert", network, size, batch_size=_BATCH_SIZE, threads=1)
    predict_fns = {KERAS: load_predict_fn(files[KERAS].read_bytes(), keras_config)}
    for name, path in files.items():
        if name in (LITERT, LITERT_INT8):
            predict_fns[name] = load_predict_fn(path.read_bytes(), litert_config)
        elif name != KERAS:
            predict_fns[name] = formats.EXPORT_FORMATS[name].load(path)
    return predict_fns


def _print_speeds(files: str, network: str, size: str) -> None:
    paths = {name: Path(path) for name, path in json.loads(files).items()}
    images = formats.make_reference_images(int(size))
    pixels = images[np.arange(_BATCH_SIZE) % len(images)]
    print(json.dumps(time_predict_fns(_load_formats(paths, network, int(size)), pixels)))


if __name__ == "__main__":
    _print_speeds(*sys.argv[1:])
