"""Face crops per second of the bundled model in each backend, compared with other classifiers.

The first other classifier is a mini-Xception that predicts one crop after the other (Arriaga et al.
2017, arXiv:1710.07557; weights rounded to 8 bits). The second is the package `fer`, if
`make bench-fer` has installed it. It also predicts one crop after the other, and gets the position
of the face, so that it does not detect faces.

Each classifier runs in its own processes on the same cores, and the measurements alternate. On
several cores, the bundled model and the mini-Xception run in one process per core, as in `score`.
`fer` runs in one process that may use all cores.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tensorflow as tf

from benchmarks import data
from benchmarks.figure import Figure
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.io.output_kinds import EXPORT_FILES, EXPORT_FOLDER, RunFile
from fer_pipeline.learning.export import litert
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.networks import registry

_REPETITIONS = 3
_IMAGE_SIZE = 48  # height and width, in pixels
_CROP_COUNT = 512
_FER_IMAGE_SIZE = 64  # height and width, in pixels
_BASELINE = "one by one"
_FER = "fer"
_FER_SHEET = "fer, one sheet"
_FER_VARIANTS = (_FER, _FER_SHEET)
_FER_PYTHON = data.ROOT / ".venv-fer" / "bin" / "python"
_SCRIPT = data.ROOT / "benchmarks" / "scoring_process.py"
_READY = "ready\n"  # printed by the script when it has loaded the model


def run() -> list[Figure]:
    """Measure all classifiers on one core and on all cores, and return the figures."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        _write_crops(scratch / "crops.npy")
        model_files = _prepare_models(scratch)
        if _FER_PYTHON.exists():
            model_files |= dict.fromkeys(_FER_VARIANTS, Path())
        core_sets = [cores[:1]] if len(cores) == 1 else [cores[:1], cores]
        figures = []
        for core_set in core_sets:
            figures += _measure_backends(model_files, scratch / "crops.npy", core_set)
    if _FER in model_files:
        # The goal is for the whole machine: the loop of `fer` may use all of its cores.
        figures[-1] = figures[-1]._replace(goal="at least 1.5")
    return figures


def _measure_backends(model_files: dict[str, Path], crops: Path, cores: list[int]) -> list[Figure]:
    """Measure all backends on the same cores.

    Args:
        model_files: Model files by name of the backend.
        crops: NumPy file with the face crops.
        cores: Numbers of the CPU cores to use.
    """
    best_rates = dict.fromkeys(model_files, 0.0)
    for _ in range(_REPETITIONS):
        for backend, model_file in model_files.items():
            rate = _measure_rate(backend, model_file, crops, cores)
            best_rates[backend] = max(best_rates[backend], rate)
    title = f"scoring, {len(cores)} core{'s' if len(cores) > 1 else ''}"
    figures = [
        Figure(f"{title}: {backend}", f"{rate:,.0f} crops/s")
        for backend, rate in best_rates.items()
    ]
    int8_rate = best_rates["litert_int8"]
    other_rates = {_BASELINE: best_rates[_BASELINE]}
    if _FER in best_rates:
        other_rates["fer, the better of both"] = max(best_rates[name] for name in _FER_VARIANTS)
    for name, rate in other_rates.items():
        measurement = f"{int8_rate / rate:.2f} ({int8_rate:,.0f} / {rate:,.0f} crops/s)"
        figures.append(Figure(f"{title}: litert_int8 / {name}", measurement))
    return figures


def _measure_rate(backend: str, model_file: Path, crops: Path, cores: list[int]) -> float:
    """Return the total crops per second of all processes of a backend.

    Args:
        backend: Name of the backend.
        model_file: File of the model.
        crops: NumPy file with the face crops.
        cores: Numbers of the CPU cores to use.
    """
    is_fer = backend in _FER_VARIANTS
    python = _FER_PYTHON if is_fer else Path(sys.executable)
    core_sets = [cores] if is_fer else [[core] for core in cores]
    processes = [
        subprocess.Popen(
            [python, _SCRIPT, backend, model_file, crops, ",".join(map(str, core_set))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for core_set in core_sets
    ]
    for process in processes:
        # Libraries may print other lines first.
        while (line := process.stdout.readline()) != _READY:  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{backend}: {python} {_SCRIPT} failed; run it by hand")
    for process in processes:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def _write_crops(path: Path) -> None:
    """Write the first images of the input as a NumPy file."""
    with data.ensure_csv(1).open(newline="") as file:
        rows = [row["pixels"] for row in islice(csv.DictReader(file), _CROP_COUNT)]
    crops = np.stack([np.fromstring(row, np.uint8, sep=" ") for row in rows])
    np.save(path, crops.reshape(-1, _IMAGE_SIZE, _IMAGE_SIZE))


def _prepare_models(scratch: Path) -> dict[str, Path]:
    """Write the model files that do not exist yet.

    Args:
        scratch: Folder for temporary files.

    Returns:
        The model file of each backend, and of the mini-Xception.
    """
    run_folder = trained_model.resolve_model_path(None)
    float_file = scratch / EXPORT_FILES["litert"]
    float_file.write_bytes(litert.convert_to_litert(TrainedModel.open(run_folder).load_network()))
    return {
        "keras": run_folder / RunFile.MODEL,
        "litert": float_file,
        "litert_int8": run_folder / EXPORT_FOLDER / EXPORT_FILES["litert_int8"],
        _BASELINE: _write_mini_xception(scratch),
    }


def _write_mini_xception(scratch: Path) -> Path:
    """Write an untrained mini-Xception as in `fer`: 64x64 pixels, weights rounded to 8 bits."""
    network = registry.build_network("mini_xception", _FER_IMAGE_SIZE, len(FER2013), {})
    model = serving_model.build_serving_model(network, _FER_IMAGE_SIZE, Normalization.centered())
    litert.write_saved_model(model, scratch / "mini_xception")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / "mini_xception"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = scratch / "mini_xception.tflite"
    path.write_bytes(converter.convert())
    return path
