"""Rate at which the jobs read a folder of small PNG files, compared with a loop without Spark.

The jobs `preprocess` and `score` read the images in the same way, hash them and keep account of
them; neither writes nor scores here. The loop runs in as many processes as Spark has cores. All
times include the start of the processes. Spark has a heap of 512 MB.

The environment variable FOLDER_IMAGES is the number of images. The fewer they are, the more the
start of Spark counts; the goal is for 100,000.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks import data
from benchmarks.figure import Figure, describe_ratios
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.synthetic.faces import draw_face

_IMAGE_COUNT = int(os.environ.get("FOLDER_IMAGES", "20000"))
_GOAL_IMAGE_COUNT = 100_000
_DRAWN_FACES = 2000
_ROUNDS = 3
_JOBS = ("preprocess", "score")
_DRIVER_MEMORY = "512m"


def run() -> list[Figure]:
    """Measure the images per second of the jobs and of the loop, and return their ratios."""
    folder = _ensure_images()
    loop = [str(data.ROOT / "benchmarks" / "baseline_folders.py"), str(folder)]
    loop_rates = []
    job_rates: dict[str, list[float]] = {job: [] for job in _JOBS}
    for _ in range(_ROUNDS):
        loop_rates.append(_measure_rate([*loop, "--processes", str(os.cpu_count())]))
        for job, rates in job_rates.items():
            rates.append(_measure_rate(["-m", "benchmarks.folders_process", job, str(folder)]))
    figures = []
    for job, rates in job_rates.items():
        measurement = describe_ratios(rates, loop_rates, "images/s", decimals=2)
        goal = "at least 0.7" if _IMAGE_COUNT >= _GOAL_IMAGE_COUNT else ""
        figures.append(Figure(f"{_IMAGE_COUNT:,} PNGs, {job}'s reading / loop", measurement, goal))
    return figures


def _ensure_images() -> Path:
    """Write different synthetic faces of 48x48 pixels, unless an earlier call has written them.

    Returns:
        A folder with one subfolder for each class.
    """
    folder = data.WORK / f"images-{_IMAGE_COUNT}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".part")
    for name in FER2013:
        (unfinished / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    faces = [draw_face(number % len(FER2013), rng) for number in range(_DRAWN_FACES)]
    for number in range(_IMAGE_COUNT):
        # Each further use of a face moves its pixels by one more, so that all images differ.
        copy, face = divmod(number, _DRAWN_FACES)
        path = unfinished / FER2013[face % len(FER2013)] / f"{number}.png"
        cv2.imwrite(str(path), np.roll(faces[face].ravel(), copy).reshape(faces[face].shape))
    return unfinished.rename(folder)


def _measure_rate(arguments: Sequence[str]) -> float:
    """Run Python with arguments, and return the images per second of the whole process.

    Args:
        arguments: Arguments with which Python prints the number of images that it has read.

    Raises:
        SystemExit: The process failed, or did not read all images.
    """
    environment: Mapping[str, str] = {**os.environ, "SPARK_DRIVER_MEMORY": _DRIVER_MEMORY}
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=data.ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if process.returncode or process.stdout.split() != [str(_IMAGE_COUNT)]:
        raise SystemExit(f"{' '.join(arguments)}: {process.stdout}{process.stderr}")
    return _IMAGE_COUNT / seconds
