"""Utilisation of the cores of a cluster when the input is skewed.

The same rows in even files, in one large file beside ten thousand files of one row, and with one
emotion only; and ten thousand tiny images. The utilisation is the part of the cores' time, while
any task runs, in which they run a task: it falls if a core waits for the last task of another.
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
from benchmarks.submit import CORES, FOLDER, start_cluster, submit
from fer_pipeline.data.emotions import FER2013

_ROWS = 120_000
_EVEN_FILES = 30
_TINY_FILES = 10_000
_IMAGE_SHAPE = (48, 48)


def run() -> list[Figure]:
    """Measure, and return all figures."""
    figures = []
    log_dir, source, dataset = FOLDER / "events", FOLDER / "input", FOLDER / "dataset"
    spark_options = (
        "--conf",
        "spark.eventLog.enabled=true",
        "--conf",
        f"spark.eventLog.dir={log_dir.as_uri()}",
    )
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    job = ("preprocess", "--input", str(source), "--output", str(dataset), *settings)
    with start_cluster() as cluster:
        log_dir.mkdir()
        for description, write_input in _INPUTS.items():
            source.mkdir()
            write_input(source)
            submit(cluster, *spark_options, *job)
            (events,) = log_dir.iterdir()
            figures.append(
                Figure(
                    f"preprocess, {description}, cores busy",
                    f"{_compute_utilisation(events):.0%}",
                    "at least 90 %",
                )
            )
            events.unlink()
            for folder in (source, dataset):
                shutil.rmtree(folder)
    return figures


def _write_even_input(folder: Path) -> None:
    _write_even_files(folder, *_read_lines())


def _write_even_files(folder: Path, header: str, *lines: str) -> None:
    for number in range(_EVEN_FILES):
        (folder / f"{number}.csv").write_text(header + "".join(lines[number::_EVEN_FILES]))


def _write_one_large_file(folder: Path) -> None:
    header, *lines = _read_lines()
    (folder / "large.csv").write_text(header + "".join(lines[_TINY_FILES:]))
    for number in range(_TINY_FILES):
        (folder / f"{number}.csv").write_text(header + lines[number])


def _write_one_emotion(folder: Path) -> None:
    header, *lines = _read_lines()
    # The labels do not fit the images: apart from them, the input is the even one.
    _write_even_files(folder, header, *(f"3,{line.partition(',')[2]}" for line in lines))


def _write_tiny_images(folder: Path) -> None:
    for number, line in enumerate(_read_lines()[1 : 1 + _TINY_FILES]):
        emotion, pixels, _ = line.split(",")
        image = np.array(pixels.split(" "), np.uint8).reshape(_IMAGE_SHAPE)
        class_folder = folder / "train" / FER2013[int(emotion)]
        class_folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(class_folder / f"{number}.png"), image)


_INPUTS: dict[str, Callable[[Path], None]] = {
    f"{_ROWS:,} rows in {_EVEN_FILES} files": _write_even_input,
    f"one file beside {_TINY_FILES:,} of one row": _write_one_large_file,
    "one emotion only": _write_one_emotion,
    f"{_TINY_FILES:,} tiny images": _write_tiny_images,
}


def _read_lines() -> list[str]:
    """Return the header and the first `_ROWS` rows."""
    with data.ensure_csv(4).open() as file:
        return list(itertools.islice(file, 1 + _ROWS))


def _compute_utilisation(events: Path) -> float:
    """Return the part of the cores' time in which they run a task, while any task runs.

    Args:
        events: Event log of Spark.
    """
    spans = []
    with events.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd":
                task = event["Task Info"]
                spans.append((task["Launch Time"], task["Finish Time"]))
    task_time = sum(finish - launch for launch, finish in spans)
    # The length of the union of all spans.
    busy_time, busy_until = 0, 0
    for launch, finish in sorted(spans):
        busy_time += max(0, finish - max(launch, busy_until))
        busy_until = max(busy_until, finish)
    return task_time / (busy_time * CORES)
