"""Photographs per second of the score job, which finds the faces first.

The job is compared with the loop of the package `fer`, if `make bench-fer` has installed it, and
with decoding and detection alone in one process for each core. The photographs are those of the
folder `shared` next to the checkout if that exists, else one of scikit-image; each is read many
times under different names. All times include the start of the processes.

The environment variable PHOTOGRAPHS is the number of photographs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2

from benchmarks import data
from benchmarks.figure import Figure, describe_ratios

_COUNT = int(os.environ.get("PHOTOGRAPHS", "4000"))
_FER_COUNT = 100
"""Number of photographs for `fer`, whose start is left out: it would count too much."""

_ROUNDS = 3
_PHOTOS = data.ROOT.parent / "shared" / "photos"
_FER_PYTHON = data.ROOT / ".venv-fer" / "bin" / "python"
_FER_LOOP = """
import sys, time
import cv2
from fer.fer import FER
detector = FER()
images = [cv2.imread(path) for path in sys.argv[2:]]
detector.detect_emotions(images[0])
start = time.perf_counter()
for number in range(int(sys.argv[1])):
    detector.detect_emotions(cv2.imread(sys.argv[2 + number % len(images)]))
print(int(sys.argv[1]) / (time.perf_counter() - start))
"""


def run() -> list[Figure]:
    """Measure the rates, and return their ratios."""
    folder = data.WORK / f"photographs-{_COUNT}"
    sources = _find_photographs()
    if not folder.exists():
        _copy_photographs(sources, folder)
    job_rates, loop_rates, fer_rates = [], [], []
    for _ in range(_ROUNDS):
        job_rates.append(_measure_job(folder))
        loop_rates.append(_measure_loop(folder))
        if _FER_PYTHON.exists():
            fer_rates.append(_measure_fer(sources))
    figures = [
        Figure(
            f"photographs, {_COUNT:,}, score / decoding and detection alone",
            describe_ratios(job_rates, loop_rates, "images/s", decimals=2),
            "at least 0.8",
        )
    ]
    if fer_rates:
        figures.append(
            Figure(
                f"photographs, {_COUNT:,}, score / fer",
                describe_ratios(job_rates, fer_rates, "images/s", decimals=2),
                "at least 8",
            )
        )
    return figures


def _find_photographs() -> list[Path]:
    """Return photographs with faces."""
    photographs = sorted(_PHOTOS.glob("200*.jpg"))
    if photographs:
        return photographs
    import skimage.data

    path = data.WORK / "astronaut.jpg"
    cv2.imwrite(str(path), cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR))
    return [path]


def _copy_photographs(sources: Sequence[Path], folder: Path) -> None:
    """Write the photographs under many names."""
    unfinished = folder.with_suffix(".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    contents = [path.read_bytes() for path in sources]
    for number in range(_COUNT):
        (unfinished / f"{number:06d}.jpg").write_bytes(contents[number % len(contents)])
    unfinished.rename(folder)


def _measure_job(folder: Path) -> float:
    """Return the photographs per second of the job, with its start."""
    output = data.WORK / "photograph-scores"
    shutil.rmtree(output, ignore_errors=True)
    arguments = ["score", "--input", str(folder), "--output", str(output), "--faces", "detect"]
    start = time.perf_counter()
    _run([sys.executable, "-m", "fer_pipeline", *arguments])
    seconds = time.perf_counter() - start
    shutil.rmtree(output)
    return _COUNT / seconds


def _measure_loop(folder: Path) -> float:
    """Return the photographs per second of decoding and detection alone, with its start."""
    command = [sys.executable, str(Path(__file__).with_name("baseline_photographs.py"))]
    start = time.perf_counter()
    _run([*command, str(folder), "--processes", str(os.cpu_count())])
    return _COUNT / (time.perf_counter() - start)


def _measure_fer(sources: Sequence[Path]) -> float:
    """Return the photographs per second of `fer`, which may use all cores, without its start."""
    command = [str(_FER_PYTHON), "-c", _FER_LOOP, str(_FER_COUNT), *map(str, sources)]
    return float(_run(command).split()[-1])


def _run(command: Sequence[str]) -> str:
    """Run a command, and return its standard output.

    Raises:
        SystemExit: It failed.
    """
    process = subprocess.run(command, cwd=data.ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(process.stderr)
    return process.stdout
