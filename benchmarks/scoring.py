"""Crops a second of the bundled model in each backend, compared with other classifiers.

They are compared with a mini-Xception that takes one crop after the other (Arriaga et al. 2017,
arXiv:1710.07557; weights rounded to 8 bits) and, if `make bench-fer` has installed it, with the
package `fer`, which does the same: its loop runs over the same crops and is told where the face is.
Each runs in its own process on the same cores, and the rounds alternate. On several cores there is
one process per core for the bundled model, as in `score`; the loop of `fer` is one process, which
may use all cores.
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

_ROUNDS = 3
_SIDE = 48  # pixels
_CROPS = 512
_FER_SIDE = 64  # pixels
_BASELINE = "one by one"
_FER = "fer"
_FER_SHEET = "fer, one sheet"
_FER_VARIANTS = (_FER, _FER_SHEET)
_FER_PYTHON = data.ROOT / ".venv-fer" / "bin" / "python"
_SCRIPT = data.ROOT / "benchmarks" / "scoring_process.py"
_READY = "ready\n"


def run() -> list[Figure]:
    """Measure, and return all figures."""
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
    best_rates = dict.fromkeys(model_files, 0.0)
    for _ in range(_ROUNDS):
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
    """Return the crops a second of all processes together."""
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
        # Libraries may print lines of their own before.
        while (line := process.stdout.readline()) != _READY:  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{backend}: {python} {_SCRIPT} failed; run it by hand")
    for process in processes:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return sum(float(process.communicate()[0].split()[-1]) for process in processes)


def _write_crops(path: Path) -> None:
    with data.ensure_csv(1).open(newline="") as file:
        rows = [row["pixels"] for row in islice(csv.DictReader(file), _CROPS)]
    crops = np.stack([np.fromstring(row, np.uint8, sep=" ") for row in rows])
    np.save(path, crops.reshape(-1, _SIDE, _SIDE))


def _prepare_models(scratch: Path) -> dict[str, Path]:
    """Return the file of the bundled model for each backend, and that of the baseline."""
    run_dir = trained_model.resolve_model_path(None)
    float_file = scratch / EXPORT_FILES["litert"]
    float_file.write_bytes(litert.convert_to_litert(TrainedModel.open(run_dir).load_network()))
    return {
        "keras": run_dir / RunFile.MODEL,
        "litert": float_file,
        "litert_int8": run_dir / EXPORT_FOLDER / EXPORT_FILES["litert_int8"],
        _BASELINE: _write_mini_xception(scratch),
    }


def _write_mini_xception(scratch: Path) -> Path:
    """Write an untrained mini-Xception as `fer` has it: 64x64, with 8-bit weights."""
    network = registry.build_network("mini_xception", _FER_SIDE, len(FER2013), {})
    model = serving_model.build_serving_model(network, _FER_SIDE, Normalization.centered())
    litert.write_saved_model(model, scratch / "mini_xception")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / "mini_xception"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = scratch / "mini_xception.tflite"
    path.write_bytes(converter.convert())
    return path
