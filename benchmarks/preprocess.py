"""Preprocessing against the same work by hand, as the data grows.

48x48, a mirror image and one rotation of each training image. Both as processes, from start to end;
Spark with a heap of 512 MB, and as many processes for the yardstick as Spark has cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import data
from benchmarks.memory import Watch

_REPEATS = (1, 4, 8)
_ROUNDS = {1: 3, 4: 2, 8: 2}
SETTINGS = ("split.usage_to_split.PublicTest=test", "variants.flip=true", "variants.rotations=[10]")
"""What it is configured with, also where its input is skewed."""


def dataset(repeat: int) -> Path:
    """Where the dataset of a run is kept, for the benchmarks of what reads it."""
    return data.WORK / f"dataset-{repeat}"


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    cores = os.cpu_count() or 1
    rows: list[tuple[str, str, str]] = []
    per_row, memory = {}, {}
    for repeat in _REPEATS:
        source = data.csv(repeat)
        ours, limit = [], []
        for _ in range(_ROUNDS[repeat]):
            limit.append(_yardstick(source, cores))
            seconds, peak = measure(source, dataset(repeat))
            ours.append(seconds)
            memory[repeat] = max(peak, memory.get(repeat, 0))
        per_row[repeat] = min(ours) / repeat
        goal = "at most 3" if repeat == _REPEATS[-1] else ""
        ratio = min(ours) / min(limit)
        detail = f"{ratio:.2f} ({min(ours):.1f} s / {min(limit):.1f} s)"
        rows.append((f"preprocess, rows x{repeat}, wall time / yardstick's", detail, goal))
    first, last = _REPEATS[0], _REPEATS[-1]
    growth = per_row[last] / per_row[first]
    rows.append((f"preprocess, time per row, x{last} / x{first}", f"{growth:.2f}", "at most 1"))
    grown = memory[last] / memory[first]
    megabytes = f"({memory[last] >> 20} MB / {memory[first] >> 20} MB)"
    what = f"preprocess, peak of a Python worker, x{last} / x{first}"
    rows.append((what, f"{grown:.2f} {megabytes}", "at most 1.2"))
    return rows


def _yardstick(source: Path, cores: int) -> float:
    target = data.WORK / "yardstick"
    command = [sys.executable, data.yardstick("preprocess"), source, target]
    began = time.perf_counter()
    subprocess.run([*command, "--processes", str(cores)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def measure(source: Path, target: Path, *settings: str) -> tuple[float, int]:
    """Runs the job.

    Args:
        source: The CSV.
        target: The dataset's folder; what is there is replaced.
        settings: Further `--set` values.

    Returns:
        The seconds that it took, and the largest resident set of any Python worker in bytes.
    """
    command = [
        str(data.ROOT / "spark-submit.sh"),
        *("--master", f"local[{os.cpu_count()}]", "--driver-memory", "512m"),
        *("preprocess", "--input", str(source), "--output", str(target), "--overwrite"),
        *(part for setting in (*SETTINGS, *settings) for part in ("--set", setting)),
    ]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        with Watch([process.pid]) as watch:
            _, errors = process.communicate()
        seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(errors.decode())
    return seconds, watch.peaks["python worker"]
