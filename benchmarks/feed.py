"""Throughput of the batch loader, compared with a baseline and with petastorm's `make_reader`.

The loader reads with petastorm or with pyarrow. The baseline reads the Parquet files without a
framework. All of them deliver the same 48x48 images as normalised float32 in batches of 128; the
batch loader and `make_reader` also shuffle. There is no cache. The measurements alternate, and the
best of each kind counts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, preprocess
from benchmarks.figure import Figure
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

_BATCH_SIZE = 128
_REPETITIONS = 3
_REPEAT = 4  # copies of each row of FER2013
_PETASTORM_ROW_COUNT = 8192
_PETASTORM_SCRIPT = Path(__file__).with_name("petastorm_store.py")
_DEFAULT = "petastorm"
_LOADER_OPTIONS: dict[str, dict[str, Any]] = {
    _DEFAULT: {},
    "petastorm, not deterministic": {"deterministic": False},
    "pyarrow": {"reader": "pyarrow"},
}


def run() -> list[Figure]:
    """Measure the images per second of all readers, and return the ratios."""
    folder = preprocess.get_dataset_folder(_REPEAT)
    if not folder.exists():
        preprocess.run_job(data.ensure_csv(_REPEAT), folder)
    store = _write_petastorm_store(folder)
    baseline_rates, petastorm_rates = [], []
    loader_rates: dict[str, list[float]] = {name: [] for name in _LOADER_OPTIONS}
    for epoch in range(_REPETITIONS):
        baseline_rates.append(_measure_baseline(folder))
        for name, rates in loader_rates.items():
            rates.append(_measure_loader(folder, _LOADER_OPTIONS[name], epoch))
        petastorm_rates.append(_measure_make_reader(store))
    shutil.rmtree(store)
    figures = []
    for name, rates in loader_rates.items():
        for reader, reader_rates, goal in (
            ("baseline", baseline_rates, "at least 0.3"),
            ("make_reader", petastorm_rates, "at least 20"),
        ):
            best, reader_best = max(rates), max(reader_rates)
            measurement = f"{best / reader_best:.2f} ({best:,.0f} / {reader_best:,.0f} images/s)"
            goal_of_default = goal if name == _DEFAULT else ""
            figures.append(Figure(f"feed, {name} / {reader}", measurement, goal_of_default))
    return figures


def _measure_baseline(folder: Path) -> float:
    """Return the images per second of the baseline.

    Args:
        folder: Folder of the dataset.
    """
    pattern = f"{folder}/split=train/*.parquet"
    command = [sys.executable, str(data.find_baseline_script("feed")), pattern]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output)["images_per_second"])


def _measure_loader(folder: Path, options: Mapping[str, Any], epoch: int) -> float:
    """Return the images per second of one epoch of the batch loader.

    Args:
        folder: Folder of the dataset.
        options: Options of the loader.
        epoch: Number of the epoch.
    """
    loader_options = LoaderOptions(_BATCH_SIZE, shuffle=True, **options)
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, loader_options)
    start = time.perf_counter()
    image_count = sum(int(labels.shape[0]) for _, labels in loader.iterate_epoch(epoch))
    return image_count / (time.perf_counter() - start)


def _read_images(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Read the first images of a dataset, each with its label."""
    loader = BatchLoader(StoredDataset.open(folder), Split.TRAIN, LoaderOptions(_BATCH_SIZE))
    remaining_count = _PETASTORM_ROW_COUNT
    for pixels, columns in loader.iterate_stored_batches(["label"]):
        for image, label in zip(pixels[:remaining_count], columns["label"], strict=False):
            yield image, int(label)
        remaining_count -= len(pixels)
        if remaining_count <= 0:
            return


def _write_petastorm_store(folder: Path) -> Path:
    """Write the first images of a dataset in petastorm's own format, and return the new folder."""
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
    """Return the images per second of petastorm's `make_reader`."""
    command = [sys.executable, str(_PETASTORM_SCRIPT), str(store)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
