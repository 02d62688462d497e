"""One process of the benchmark `scoring`: classifies the same crops repeatedly.

    python benchmarks/scoring_process.py BACKEND MODEL CROPS.npy CORES

It prints "ready" when everything is loaded, starts at the first line of its input, and prints the
crops a second. CORES, such as 0,1, are the cores that it may use. `fer` has its own environment, so
each function imports only what its backend needs.
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
_CROPS = 512
_CROPS_PER_SHEET_ROW = 16


def main(backend: str, model: str, crops: str, cores: str) -> None:
    """Load the model, wait for the start, and measure.

    Args:
        backend: A key of `_BACKENDS`.
        model: Path of the model file; unused by `fer`.
        crops: Path of the crops, uint8 of shape (n, side, side).
        cores: Comma-separated numbers of the cores to use.
    """
    # Before any thread starts: threads inherit it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    pixels = np.load(crops)[:_CROPS]
    classify = _BACKENDS[backend](model, pixels)
    classify()
    print("ready", flush=True)
    sys.stdin.readline()
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS:
        classify()
        count += len(pixels)
    print(count / seconds, flush=True)


def _load_keras(model: str, pixels: np.ndarray) -> Callable[[], object]:
    return _load_predictor("keras", model, pixels)


def _load_litert(model: str, pixels: np.ndarray) -> Callable[[], object]:
    return _load_predictor("litert", model, pixels)


def _load_predictor(backend: str, model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Load a model as the workers of `score` do."""
    from fer_pipeline.io.output_kinds import DEFAULT_MODEL
    from fer_pipeline.learning.inference.predictor import PredictorConfig, load_predict_fn

    config = PredictorConfig(backend, DEFAULT_MODEL, pixels.shape[1], _BATCH_SIZE, threads=1)  # type: ignore[arg-type]
    predict = load_predict_fn(Path(model).read_bytes(), config)
    return lambda: predict(pixels)


def _load_one_by_one(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Enlarge and run each crop by itself, in a LiteRT model."""
    import cv2
    from ai_edge_litert.interpreter import Interpreter

    cv2.setNumThreads(1)
    interpreter = Interpreter(model, num_threads=1)
    interpreter.allocate_tensors()
    (model_input,) = interpreter.get_input_details()
    (model_output,) = interpreter.get_output_details()
    side = int(model_input["shape"][1])

    def classify() -> None:
        for crop in pixels:
            face = cv2.resize(crop, (side, side)).astype(np.float32)
            interpreter.set_tensor(model_input["index"], face[np.newaxis, ..., np.newaxis])
            interpreter.invoke()
            interpreter.get_tensor(model_output["index"])

    return classify


def _load_fer(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Call `FER.detect_emotions` for each crop with the face's rectangle: it searches no face."""
    import cv2
    from fer.fer import FER

    detector, side = FER(), pixels.shape[1]
    images = [cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR) for crop in pixels]
    rectangles = [(0, 0, side, side)]
    return lambda: [detector.detect_emotions(image, rectangles) for image in images]


def _load_fer_sheet(model: str, pixels: np.ndarray) -> Callable[[], object]:
    """Call `FER.detect_emotions` for one image of all crops; it has no other way to batch."""
    import cv2
    from fer.fer import FER

    detector, side = FER(), pixels.shape[1]
    rows = pixels.reshape(-1, _CROPS_PER_SHEET_ROW, side, side)
    sheet = cv2.cvtColor(np.block([list(row) for row in rows]), cv2.COLOR_GRAY2BGR)
    rectangles = [
        (column * side, row * side, side, side)
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
