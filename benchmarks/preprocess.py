"""Preprocessing, compared with the same work written by hand, as the data grows.

48x48, with a mirror image and one rotation of each training image. Both run as processes and are
timed from start to end. Spark has a heap of 512 MB, and the yardstick as many processes as Spark
has cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import data
from benchmarks.figure import Figure
from benchmarks.memory import MemoryMonitor

_ROUNDS_BY_REPEAT = {1: 3, 4: 2, 8: 2}
_DRIVER_MEMORY = "512m"
SETTINGS = (
    "split.usage_to_split.PublicTest=test",
    "variants.flip=true",
    "variants.rotations=[10]",
)
"""The configuration, also of the benchmark with skewed input."""


def dataset_folder(repeat: int) -> Path:
    """Return the folder in which a dataset is kept for the benchmarks that read it."""
    return data.WORK / f"dataset-{repeat}"


def run() -> list[Figure]:
    """Measure, and return all figures."""
    cores = os.cpu_count() or 1
    figures: list[Figure] = []
    seconds_per_repeat = {}
    peaks: dict[int, int] = {}
    first, last = min(_ROUNDS_BY_REPEAT), max(_ROUNDS_BY_REPEAT)
    for repeat, rounds in _ROUNDS_BY_REPEAT.items():
        source = data.write_csv(repeat)
        job_seconds, yardstick_seconds = [], []
        for _ in range(rounds):
            yardstick_seconds.append(_run_yardstick(source, cores))
            seconds, peak = run_job(source, dataset_folder(repeat))
            job_seconds.append(seconds)
            peaks[repeat] = max(peak, peaks.get(repeat, 0))
        best, yardstick = min(job_seconds), min(yardstick_seconds)
        seconds_per_repeat[repeat] = best / repeat
        figures.append(
            Figure(
                f"preprocess, rows x{repeat}, wall time / yardstick's",
                f"{best / yardstick:.2f} ({best:.1f} s / {yardstick:.1f} s)",
                "at most 3" if repeat == last else "",
            )
        )
    time_growth = seconds_per_repeat[last] / seconds_per_repeat[first]
    memory_growth = peaks[last] / peaks[first]
    megabytes = f"({peaks[last] >> 20} MB / {peaks[first] >> 20} MB)"
    return [
        *figures,
        Figure(f"preprocess, time per row, x{last} / x{first}", f"{time_growth:.2f}", "at most 1"),
        Figure(
            f"preprocess, peak of a Python worker, x{last} / x{first}",
            f"{memory_growth:.2f} {megabytes}",
            "at most 1.2",
        ),
    ]


def _run_yardstick(source: Path, cores: int) -> float:
    """Return the wall time of the yardstick, in seconds."""
    target = data.WORK / "yardstick"
    command = [sys.executable, data.find_yardstick("preprocess"), source, target]
    start = time.perf_counter()
    subprocess.run([*command, "--processes", str(cores)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def run_job(source: Path, target: Path, *settings: str) -> tuple[float, int]:
    """Run the job, and measure its time and memory.

    Args:
        source: The CSV.
        target: Folder of the dataset; an existing dataset is replaced.
        settings: Further `--set` values.

    Returns:
        The wall time in seconds, and the largest resident set of any Python worker in bytes.
    """
    command = [str(data.ROOT / "spark-submit.sh")]
    command += ["--master", f"local[{os.cpu_count()}]", "--driver-memory", _DRIVER_MEMORY]
    command += ["preprocess", "--input", str(source), "--output", str(target), "--overwrite"]
    for setting in (*SETTINGS, *settings):
        command += ["--set", setting]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        with MemoryMonitor([process.pid]) as monitor:
            _, errors = process.communicate()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(errors.decode())
    return seconds, monitor.peaks["python worker"]
