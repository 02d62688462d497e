"""Process of the benchmark `scoring` that classifies the same face crops repeatedly.

    python benchmarks/scoring_process.py BACKEND MODEL CROPS.npy CORES

CORES are the numbers of the CPU cores to use, for example 0,1. The process prints "ready" when it
has loaded the model, waits for a line on its standard input, and then measures and prints the crops
per second. `fer` has its own environment, so each function imports only the packages of its
backend.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_SECONDS = 4.0
_BATCH_SIZE = 256
_CROP_COUNT = 512
_CROPS_PER_SHEET_ROW = 16


def main(backend: str, model: str, crops: str, cores: str) -> None:
    """Load the model, wait for the start signal, and print the crops per second.

    Args:
        backend: Key of `_BACKENDS`.
        model: Path of the model file; not used by `fer`.
        crops: Path of the NumPy file with the crops, uint8 of shape (n, size, size).
        cores: Comma-separated numbers of the CPU cores to use.
    """
    # The affinity is set before any thread starts, because threads inherit it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    pixels = np.load(crops)[:_CROP_COUNT]
    classify = _BACKENDS[backend](model, pixels)
    classify()
    print("ready", flush=True)
    sys.stdin.readline()
    crop_count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS:
        classify()
        crop_count += len(pixels)
    print(crop_count / seconds, flush=True)


def _load_keras(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that classifies all crops with a Keras model."""
    return _load_predictor("keras", model, pixels)


def _load_litert(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that classifies all crops with a LiteRT model."""
    return _load_predictor("litert", model, pixels)


def _load_predictor(backend: str, model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that classifies all crops as the workers of the job `score` do.

    Args:
        backend: "keras" or "litert".
        model: Path of the model file.
        pixels: Crops, uint8 of shape (n, size, size).
    """
    from fer_pipeline.io.output_kinds import DEFAULT_MODEL
    from fer_pipeline.learning.inference.predictor import PredictorConfig, load_predict_fn

    config = PredictorConfig(backend, DEFAULT_MODEL, pixels.shape[1], _BATCH_SIZE, threads=1)  # type: ignore[arg-type]
    predict = load_predict_fn(Path(model).read_bytes(), config)
    return lambda: predict(pixels)


def _load_one_by_one(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that enlarges and classifies one crop after the other with LiteRT."""
    import cv2
    from ai_edge_litert.interpreter import Interpreter

    cv2.setNumThreads(1)
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    (model_input,) = interpreter.get_input_details()
    (model_output,) = interpreter.get_output_details()
    size = int(model_input["shape"][1])

    def classify() -> None:
        """Classify all crops, one after the other."""
        for crop in pixels:
            face = cv2.resize(crop, (size, size)).astype(np.float32)
            interpreter.set_tensor(model_input["index"], face[np.newaxis, ..., np.newaxis])
            interpreter.invoke()
            interpreter.get_tensor(model_output["index"])

    return classify


def _load_fer(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that calls `FER.detect_emotions` for each crop.

    The call gets the rectangle of the face, so `fer` does not detect faces.
    """
    import cv2
    from fer.fer import FER

    detector, size = FER(), pixels.shape[1]
    images = [cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR) for crop in pixels]
    rectangles = [(0, 0, size, size)]
    return lambda: [detector.detect_emotions(image, rectangles) for image in images]


def _load_fer_sheet(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Return a function that calls `FER.detect_emotions` for a single image with all crops.

    This is the only way to process crops in batches with `fer`.
    """
    import cv2
    from fer.fer import FER

    detector, size = FER(), pixels.shape[1]
    rows = pixels.reshape(-1, _CROPS_PER_SHEET_ROW, size, size)
    sheet = cv2.cvtColor(np.block([list(row) for row in rows]), cv2.COLOR_GRAY2BGR)
    rectangles = [
        (column * size, row * size, size, size)
        for row in range(len(rows))
        for column in range(_CROPS_PER_SHEET_ROW)
    ]
    return lambda: detector.detect_emotions(sheet, rectangles)


_BACKENDS = {
    "keras": _load_keras,
    "litert": _load_litert,
    "litert_int8": _load_litert,
    "one by one": _load_one_by_one,
    "fer": _load_fer,
    "fer, one sheet": _load_fer_sheet,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
