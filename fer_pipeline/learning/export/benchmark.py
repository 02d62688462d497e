"""How fast a model's forms are where they score: in a Spark worker, which has one thread."""

from __future__ import annotations

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
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.inference.export_manifest import FLOAT, INT8
from fer_pipeline.learning.inference.predictor import Pixels, Predict, PredictorConfig, predictor

KERAS: Final = "keras"
"""The run's own `model.keras`, beside the forms of `output_kinds.EXPORT_FILES`."""

# Always the same, whatever is configured: what an export says holds for all that use it later.
_BATCH = 256
# A turn of fewer seconds would be luck more than speed.
_TURNS, _SECONDS = 5, 0.25


def measure(files: Mapping[str, Path], network: str, size: int) -> dict[str, float]:
    """Images a second of each form, on one core, as a worker runs it.

    Measured in a process of its own, because TensorFlow's threads are limited before it computes
    anything or never. It has one thread, and sees no GPU.

    Args:
        files: The file or folder of each form; `keras` is one of them.
        network: The network's name in the configuration.
        size: The side of its images, in pixels.

    Returns:
        Images a second, by the same names.

    Raises:
        RunError: The process failed.
    """
    given = {name: str(path.resolve()) for name, path in files.items()}
    # With -P, nothing in the working folder stands in for a module.
    command = [sys.executable, "-P", "-m", __name__, json.dumps(given), network, str(size)]
    there = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = {**os.environ, **there}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise RunError(f"{files[KERAS]}: its speed cannot be measured: {reason[:200]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def speeds(forms: Mapping[str, Predict], pixels: Pixels) -> dict[str, float]:
    """Images for each second of this process's processor time, after a pass that warms up.

    What else the machine does meanwhile takes no time of it, but slows the caches and the clock:
    so the forms take turns, and the best of each one's turns counts.

    Args:
        forms: What is measured, by name.
        pixels: Uint8 of shape (n, size, size); one call takes them all.
    """
    for run in forms.values():
        run(pixels)
    turns = [{name: _speed(run, pixels) for name, run in forms.items()} for _ in range(_TURNS)]
    return {name: max(turn[name] for turn in turns) for name in forms}


def _speed(run: Predict, pixels: Pixels) -> float:
    done, begun = 0, time.process_time()
    while (passed := time.process_time() - begun) < _SECONDS:
        run(pixels)
        done += len(pixels)
    return done / passed


def _loaded(files: Mapping[str, Path], network: str, size: int) -> dict[str, Predict]:
    """The forms as a worker loads them; Keras first, which limits TensorFlow's threads."""
    plain = PredictorConfig(KERAS, network, size, batch_size=_BATCH, threads=1)
    lite = PredictorConfig("litert", network, size, batch_size=_BATCH, threads=1)
    made = {KERAS: predictor(files[KERAS].read_bytes(), plain)}
    for name, path in files.items():
        if name in (FLOAT, INT8):
            made[name] = predictor(path.read_bytes(), lite)
        elif name != KERAS:
            made[name] = formats.FORMS[name].load(path)
    return made


def _main(files: str, network: str, size: str) -> None:
    paths = {name: Path(path) for name, path in json.loads(files).items()}
    shown = formats.reference_images(int(size))
    pixels = shown[np.arange(_BATCH) % len(shown)]
    print(json.dumps(speeds(_loaded(paths, network, int(size)), pixels)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
