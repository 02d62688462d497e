"""Utilisation of the cores of a cluster for skewed inputs of the preprocess job.

The inputs are the same rows in files of equal size, in one large file and ten thousand files of one
row, and with a single emotion; and ten thousand small image files. The utilisation is the fraction
of the time with a running task in which a core is busy, averaged over the cores. It is low if some
cores wait for the last tasks of other cores.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks import data
from benchmarks.figure import Figure
from benchmarks.preprocess import SETTINGS
from benchmarks.submit import CORES, FOLDER, run_cluster, submit_job
from fer_pipeline.data.emotions import FER2013

_ROW_COUNT = 120_000
_EVEN_FILE_COUNT = 30
_TINY_FILE_COUNT = 10_000
_IMAGE_SHAPE = (48, 48)


def run() -> list[Figure]:
    """Preprocess all inputs, and return the utilisation of the cores for each."""
    figures = []
    log_folder, source, dataset = FOLDER / "events", FOLDER / "input", FOLDER / "dataset"
    spark_options = (
        "--conf",
        "spark.eventLog.enabled=true",
        "--conf",
        f"spark.eventLog.dir={log_folder.as_uri()}",
    )
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    job = ("preprocess", "--input", str(source), "--output", str(dataset), *settings)
    with run_cluster() as cluster:
        log_folder.mkdir()
        for description, write_input in _INPUTS.items():
            source.mkdir()
            write_input(source)
            submit_job(cluster, *spark_options, *job)
            (event_log,) = log_folder.iterdir()
            figures.append(
                Figure(
                    f"preprocess, {description}, cores busy",
                    f"{_compute_utilisation(event_log):.0%}",
                    "at least 90 %",
                )
            )
            event_log.unlink()
            for folder in (source, dataset):
                shutil.rmtree(folder)
    return figures


def _write_even_input(folder: Path) -> None:
    """Write the rows to files of equal size."""
    _write_even_files(folder, *_read_lines())


def _write_even_files(folder: Path, header: str, *lines: str) -> None:
    """Write lines to `_EVEN_FILE_COUNT` CSV files of equal size, each with the header."""
    for number in range(_EVEN_FILE_COUNT):
        (folder / f"{number}.csv").write_text(header + "".join(lines[number::_EVEN_FILE_COUNT]))


def _write_one_large_file(folder: Path) -> None:
    """Write `_TINY_FILE_COUNT` files of one row, and one file with all other rows."""
    header, *lines = _read_lines()
    (folder / "large.csv").write_text(header + "".join(lines[_TINY_FILE_COUNT:]))
    for number in range(_TINY_FILE_COUNT):
        (folder / f"{number}.csv").write_text(header + lines[number])


def _write_one_emotion(folder: Path) -> None:
    """Write the rows to files of equal size, all with the same label."""
    header, *lines = _read_lines()
    # Only the labels differ from the even input; they do not match the images.
    _write_even_files(folder, header, *(f"3,{line.partition(',')[2]}" for line in lines))


def _write_tiny_images(folder: Path) -> None:
    """Write the images of the first rows as PNG files, in one folder per class."""
    for number, line in enumerate(_read_lines()[1 : 1 + _TINY_FILE_COUNT]):
        emotion, pixels, _ = line.split(",")
        image = np.array(pixels.split(" "), np.uint8).reshape(_IMAGE_SHAPE)
        class_folder = folder / "train" / FER2013[int(emotion)]
        class_folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(class_folder / f"{number}.png"), image)


_INPUTS: dict[str, Callable[[Path], None]] = {
    f"{_ROW_COUNT:,} rows in {_EVEN_FILE_COUNT} files": _write_even_input,
    f"one file and {_TINY_FILE_COUNT:,} of one row": _write_one_large_file,
    "one emotion only": _write_one_emotion,
    f"{_TINY_FILE_COUNT:,} small image files": _write_tiny_images,
}


def _read_lines() -> list[str]:
    """Return the header and the first `_ROW_COUNT` rows."""
    with data.ensure_csv(4).open() as file:
        return list(itertools.islice(file, 1 + _ROW_COUNT))


def _compute_utilisation(event_log: Path) -> float:
    """Compute how busy the cores are while one or more tasks run.

    Args:
        event_log: Event log of Spark.

    Returns:
        The fraction of the time in which a core runs a task, averaged over the cores, in [0, 1].
    """
    spans = []
    with event_log.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd":
                task = event["Task Info"]
                spans.append((task["Launch Time"], task["Finish Time"]))
    task_time = sum(finish - launch for launch, finish in spans)
    # The busy time is the length of the union of all spans.
    busy_time, busy_until = 0, 0
    for launch, finish in sorted(spans):
        busy_time += max(0, finish - max(launch, busy_until))
        busy_until = max(busy_until, finish)
    return task_time / (busy_time * CORES)
