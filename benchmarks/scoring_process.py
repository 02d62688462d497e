"""One process of the benchmark `scoring`: crops through one runtime, over and over.

    python benchmarks/scoring_process.py RUNTIME MODEL CROPS.npy CORES

It says "ready" once it has loaded all, begins at the first line of its input, and prints the crops
a second. CORES, such as 0,1, are those that it may use. `fer` needs an environment of its own, so
nothing is imported here but what a runtime needs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_SECONDS, _BATCH, _CROPS = 4.0, 256, 512


def main(runtime: str, model: str, crops: str, cores: str) -> None:
    """Loads, waits for the start, measures."""
    # Before a thread is started: each inherits it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    pixels = np.load(crops)[:_CROPS]
    run = _RUNTIMES[runtime](model, pixels)
    run()
    print("ready", flush=True)
    sys.stdin.readline()
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < _SECONDS:
        run()
        count += len(pixels)
    print(count / passed, flush=True)


def _keras(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """As a worker of `score` does it."""
    return _predictor("keras", model, pixels)


def _litert(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """As a worker of `score` does it."""
    return _predictor("litert", model, pixels)


def _predictor(runtime: str, model: str, pixels: np.ndarray) -> Callable[[], object]:
    from fer_pipeline.io.output_kinds import DEFAULT_MODEL
    from fer_pipeline.learning.inference.predictor import PredictorConfig, predictor

    settings = PredictorConfig(runtime, DEFAULT_MODEL, pixels.shape[1], _BATCH, threads=1)  # type: ignore[arg-type]
    run = predictor(Path(model).read_bytes(), settings)
    return lambda: run(pixels)


def _one_by_one(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Each crop by itself: enlarged, brought to -1..1, and given to a LiteRT file."""
    import cv2
    from ai_edge_litert.interpreter import Interpreter

    cv2.setNumThreads(1)
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    side = int(given["shape"][1])

    def run() -> None:
        for crop in pixels:
            face = cv2.resize(crop, (side, side)).astype(np.float32)
            interpreter.set_tensor(given["index"], face[np.newaxis, ..., np.newaxis])
            interpreter.invoke()
            interpreter.get_tensor(made["index"])

    return run


def _fer(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """`FER.detect_emotions` for each crop, which is told where the face is: no face is searched."""
    import cv2
    from fer.fer import FER

    detector, side = FER(), pixels.shape[1]
    pictures = [cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR) for crop in pixels]
    whole = [(0, 0, side, side)]
    return lambda: [detector.detect_emotions(picture, whole) for picture in pictures]


def _fer_sheet(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """The same for one large picture of all crops: the only way to give it several at once."""
    import cv2
    from fer.fer import FER

    detector, side = FER(), pixels.shape[1]
    rows = pixels.reshape(-1, 16, side, side)
    sheet = cv2.cvtColor(np.block([list(row) for row in rows]), cv2.COLOR_GRAY2BGR)
    places = [
        (column * side, row * side, side, side) for row in range(len(rows)) for column in range(16)
    ]
    return lambda: detector.detect_emotions(sheet, places)


_RUNTIMES = {
    "keras": _keras,
    "litert": _litert,
    "litert_int8": _litert,
    "one by one": _one_by_one,
    "fer": _fer,
    "fer, one sheet": _fer_sheet,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
