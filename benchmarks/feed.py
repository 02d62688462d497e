"""The feed, in images a second into TensorFlow, against reading by hand and make_reader.

48x48, shuffled, normalised float32, batch 128, no cache. All read the same images; the rounds of
the three alternate, and the best of each counts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import data, preprocess
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

_BATCH, _ROUNDS = 128, 3
_REPEAT = 4
_READER_ROWS = 8192


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    folder = preprocess.dataset(_REPEAT)
    if not folder.exists():
        preprocess.measure(data.csv(_REPEAT), folder)
    store = _petastorm_store(folder)
    limit, ours, reader = [], {True: [0.0], False: [0.0]}, []
    for number in range(_ROUNDS):
        limit.append(_yardstick(folder))
        for deterministic in ours:
            ours[deterministic].append(_feed(folder, deterministic, number))
        reader.append(_make_reader(store))
    shutil.rmtree(store)
    rows = []
    for deterministic, name in ((True, "deterministic"), (False, "not deterministic")):
        best = max(ours[deterministic])
        for what, other, goal in (
            ("yardstick", max(limit), "at least 0.3" if deterministic else ""),
            ("make_reader", max(reader), "at least 20" if deterministic else ""),
        ):
            shown = f"{best / other:.2f} ({best:,.0f} / {other:,.0f} images/s)"
            rows.append((f"feed, {name} / {what}", shown, goal))
    return rows


def _yardstick(folder: Path) -> float:
    pattern = f"{folder}/split=train/*.parquet"
    command = [sys.executable, str(data.yardstick("feed")), pattern]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(answer)["images_per_second"])


def _feed(folder: Path, deterministic: bool, epoch: int) -> float:
    options = LoaderOptions(_BATCH, shuffle=True, deterministic=deterministic)
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, options)
    began = time.perf_counter()
    images = sum(int(labels.shape[0]) for _, labels in loader.iterate_epoch(epoch))
    return images / (time.perf_counter() - began)


def _images(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, LoaderOptions(_BATCH))
    left = _READER_ROWS
    for pixels, columns in loader.iterate_stored_rows(["label"]):
        for image, label in zip(pixels[:left], columns["label"], strict=False):
            yield image, int(label)
        left -= len(pixels)
        if left <= 0:
            return


def _petastorm_store(folder: Path) -> Path:
    """The first images again, in petastorm's own format: a Unischema with a codec."""
    target = data.WORK / "petastorm"
    shutil.rmtree(target, ignore_errors=True)
    script = Path(__file__).with_name("petastorm_store.py")
    images = data.WORK / "images.npz"
    pixels, labels = zip(*_images(folder), strict=True)
    np.savez(images, pixels=np.stack(pixels), labels=np.array(labels, np.int32))
    subprocess.run([sys.executable, str(script), str(images), str(target)], check=True)
    images.unlink()
    return target


def _make_reader(store: Path) -> float:
    script = Path(__file__).with_name("petastorm_store.py")
    command = [sys.executable, str(script), str(store)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
