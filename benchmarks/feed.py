"""Images a second from the batch loader, compared with reading by hand and with make_reader.

48x48, shuffled, normalised float32, batch size 128, no cache. All three read the same images. Their
rounds alternate, and the best round of each counts.
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
from benchmarks.figure import Figure
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

_BATCH_SIZE = 128
_ROUNDS = 3
_REPEAT = 4
_PETASTORM_ROWS = 8192
_PETASTORM_SCRIPT = Path(__file__).with_name("petastorm_store.py")


def run() -> list[Figure]:
    """Measure, and return all figures."""
    folder = preprocess.dataset_folder(_REPEAT)
    if not folder.exists():
        preprocess.run_job(data.write_csv(_REPEAT), folder)
    store = _write_petastorm_store(folder)
    yardstick_rates, petastorm_rates = [], []
    loader_rates: dict[bool, list[float]] = {True: [], False: []}
    for epoch in range(_ROUNDS):
        yardstick_rates.append(_measure_yardstick(folder))
        for deterministic, rates in loader_rates.items():
            rates.append(_measure_loader(folder, deterministic, epoch))
        petastorm_rates.append(_measure_make_reader(store))
    shutil.rmtree(store)
    figures = []
    for deterministic, rates in loader_rates.items():
        name = "deterministic" if deterministic else "not deterministic"
        for other, other_rates, goal in (
            ("yardstick", yardstick_rates, "at least 0.3"),
            ("make_reader", petastorm_rates, "at least 20"),
        ):
            best, other_best = max(rates), max(other_rates)
            measurement = f"{best / other_best:.2f} ({best:,.0f} / {other_best:,.0f} images/s)"
            goal_of_default = goal if deterministic else ""
            figures.append(Figure(f"feed, {name} / {other}", measurement, goal_of_default))
    return figures


def _measure_yardstick(folder: Path) -> float:
    pattern = f"{folder}/split=train/*.parquet"
    command = [sys.executable, str(data.find_yardstick("feed")), pattern]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output)["images_per_second"])


def _measure_loader(folder: Path, deterministic: bool, epoch: int) -> float:
    options = LoaderOptions(_BATCH_SIZE, shuffle=True, deterministic=deterministic)
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, options)
    start = time.perf_counter()
    images = sum(int(labels.shape[0]) for _, labels in loader.iterate_epoch(epoch))
    return images / (time.perf_counter() - start)


def _read_images(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, LoaderOptions(_BATCH_SIZE))
    remaining = _PETASTORM_ROWS
    for pixels, columns in loader.iterate_stored_rows(["label"]):
        for image, label in zip(pixels[:remaining], columns["label"], strict=False):
            yield image, int(label)
        remaining -= len(pixels)
        if remaining <= 0:
            return


def _write_petastorm_store(folder: Path) -> Path:
    """Write the first images in petastorm's own format: a Unischema with a codec."""
    store = data.WORK / "petastorm"
    shutil.rmtree(store, ignore_errors=True)
    arrays = data.WORK / "images.npz"
    pixels, labels = zip(*_read_images(folder), strict=True)
    np.savez(arrays, pixels=np.stack(pixels), labels=np.array(labels, np.int32))
    command = [sys.executable, str(_PETASTORM_SCRIPT), str(arrays), str(store)]
    subprocess.run(command, check=True)
    arrays.unlink()
    return store


def _measure_make_reader(store: Path) -> float:
    command = [sys.executable, str(_PETASTORM_SCRIPT), str(store)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
