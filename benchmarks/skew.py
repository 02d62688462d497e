"""How busy the cores of a cluster are when the input is skewed.

The same rows in even files, in one large file beside ten thousand of one row, and of one emotion
alone; and ten thousand tiny images. Busy is the part of the cores' time, while any task runs, in
which a task runs on them: a core that waits for another's last task shows.
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
from benchmarks.preprocess import SETTINGS
from benchmarks.submit import CORES, FOLDER, cluster, submit
from fer_pipeline.data.emotions import FER2013

_ROWS, _EVEN_FILES, _TINY_FILES = 120_000, 30, 10_000


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    rows: list[tuple[str, str, str]] = []
    with cluster() as made:
        log = FOLDER / "events"
        log.mkdir()
        for what, make in _INPUTS.items():
            source = FOLDER / "input"
            source.mkdir()
            make(source)
            submit(
                *(made, "--conf", "spark.eventLog.enabled=true"),
                *("--conf", f"spark.eventLog.dir={log.as_uri()}"),
                *("preprocess", "--input", str(source), "--output", str(FOLDER / "dataset")),
                *(part for setting in SETTINGS for part in ("--set", setting)),
            )
            (events,) = log.iterdir()
            rows.append(
                (f"preprocess, {what}, cores busy", f"{_busy(events):.0%}", "at least 90 %")
            )
            events.unlink()
            for folder in (source, FOLDER / "dataset"):
                shutil.rmtree(folder)
    return rows


def _evenly(folder: Path) -> None:
    _in_even_files(folder, *_lines())


def _in_even_files(folder: Path, header: str, *lines: str) -> None:
    for number in range(_EVEN_FILES):
        (folder / f"{number}.csv").write_text(header + "".join(lines[number::_EVEN_FILES]))


def _one_large(folder: Path) -> None:
    header, *lines = _lines()
    (folder / "large.csv").write_text(header + "".join(lines[_TINY_FILES:]))
    for number in range(_TINY_FILES):
        (folder / f"{number}.csv").write_text(header + lines[number])


def _one_emotion(folder: Path) -> None:
    header, *lines = _lines()
    # Whatever they show: nothing else differs from the even ones.
    _in_even_files(folder, header, *(f"3,{line.partition(',')[2]}" for line in lines))


def _tiny_images(folder: Path) -> None:
    for number, line in enumerate(_lines()[1 : 1 + _TINY_FILES]):
        emotion, pixels, _ = line.split(",")
        image = np.array(pixels.split(" "), np.uint8).reshape(48, 48)
        place = folder / "train" / FER2013[int(emotion)]
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{number}.png"), image)


_INPUTS: dict[str, Callable[[Path], None]] = {
    f"{_ROWS:,} rows in {_EVEN_FILES} files": _evenly,
    f"one file beside {_TINY_FILES:,} of one row": _one_large,
    "one emotion alone": _one_emotion,
    f"{_TINY_FILES:,} tiny images": _tiny_images,
}


def _lines() -> list[str]:
    with data.csv(4).open() as file:
        return list(itertools.islice(file, 1 + _ROWS))


def _busy(events: Path) -> float:
    """The part of the cores' time in which they have a task, while any of them has one."""
    runs = []
    with events.open() as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd":
                info = event["Task Info"]
                runs.append((info["Launch Time"], info["Finish Time"]))
    spent = sum(finish - launch for launch, finish in runs)
    some, until = 0, 0
    for launch, finish in sorted(runs):
        some += max(0, finish - max(launch, until))
        until = max(until, finish)
    return spent / (some * CORES)
