"""Time and memory of the preprocess job for growing inputs, compared with a baseline.

The baseline does the same work without Spark, with as many processes as Spark has cores. Both write
48x48 images, with a mirror image and one rotation of each training image. The times include the
start of the processes. Spark has a heap of 512 MB.
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

# Number of measurements by number of copies of each row of FER2013.
_MEASUREMENTS_BY_REPEAT = {1: 3, 4: 2, 8: 2}
_DRIVER_MEMORY = "512m"
SETTINGS = (
    "split.usage_to_split.PublicTest=test",
    "variants.flip=true",
    "variants.rotations=[10]",
)
"""Settings of the job; the benchmark `skew` uses the same."""


def get_dataset_folder(repeat: int) -> Path:
    """Return the folder of the preprocessed dataset, which other benchmarks read.

    Args:
        repeat: Number of copies of each row of FER2013.
    """
    return data.WORK / f"dataset-{repeat}"


def run() -> list[Figure]:
    """Measure the job and the baseline, and return all figures."""
    cores = os.cpu_count() or 1
    figures: list[Figure] = []
    seconds_per_repeat = {}
    peaks: dict[int, int] = {}
    first, last = min(_MEASUREMENTS_BY_REPEAT), max(_MEASUREMENTS_BY_REPEAT)
    for repeat, measurement_count in _MEASUREMENTS_BY_REPEAT.items():
        source = data.ensure_csv(repeat)
        job_seconds, baseline_seconds = [], []
        for _ in range(measurement_count):
            baseline_seconds.append(_run_baseline(source, cores))
            seconds, peak = run_job(source, get_dataset_folder(repeat))
            job_seconds.append(seconds)
            peaks[repeat] = max(peak, peaks.get(repeat, 0))
        best, baseline = min(job_seconds), min(baseline_seconds)
        seconds_per_repeat[repeat] = best / repeat
        figures.append(
            Figure(
                f"preprocess, rows x{repeat}, wall time / baseline's",
                f"{best / baseline:.2f} ({best:.1f} s / {baseline:.1f} s)",
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


def _run_baseline(source: Path, cores: int) -> float:
    """Run the baseline and return its wall time, in seconds.

    Args:
        source: CSV file to convert.
        cores: Number of processes.
    """
    target = data.WORK / "baseline"
    command = [sys.executable, data.find_baseline_script("preprocess"), source, target]
    start = time.perf_counter()
    subprocess.run([*command, "--processes", str(cores)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def run_job(source: Path, target: Path, *settings: str) -> tuple[float, int]:
    """Run the preprocess job, and measure its time and memory.

    Args:
        source: CSV file to preprocess.
        target: Folder of the dataset; an existing dataset is replaced.
        settings: Values of additional `--set` options.

    Returns:
        The wall time in seconds, and the largest resident set size of a Python worker in bytes.
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
