"""Throughput of the batch loader, compared with a baseline and with petastorm's usual pipeline.

The loader reads with petastorm or with pyarrow. The baseline reads the Parquet files without a
framework; petastorm's usual pipeline has one element per row. All of them deliver the same 48x48
images as normalised float32 in batches of 128; all but the baseline also shuffle. There is no
cache. The measurements alternate, and the best of each kind counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import data, preprocess
from benchmarks.figure import Figure
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

_BATCH_SIZE = 128
_REPETITIONS = 3
_REPEAT = 4  # copies of each row of FER2013
_PETASTORM_SCRIPT = "benchmarks.baseline_petastorm"
_BY_ROW = "petastorm by row"
_GOALS = {
    ("petastorm", "baseline"): "at least 0.3",
    ("petastorm", _BY_ROW): "at least 2",
    ("pyarrow", "baseline"): "at least 0.8",
}
_LOADER_OPTIONS: dict[str, dict[str, Any]] = {
    "petastorm": {},
    "petastorm, not deterministic": {"deterministic": False},
    "pyarrow": {"reader": "pyarrow"},
}


def run() -> list[Figure]:
    """Measure the images per second of all readers, and return the ratios."""
    folder = preprocess.get_dataset_folder(_REPEAT)
    if not folder.exists():
        preprocess.run_job(data.ensure_csv(_REPEAT), folder)
    baseline_rates, petastorm_rates = [], []
    loader_rates: dict[str, list[float]] = {name: [] for name in _LOADER_OPTIONS}
    for epoch in range(_REPETITIONS):
        baseline_rates.append(_measure_baseline(folder))
        for name, rates in loader_rates.items():
            rates.append(_measure_loader(folder, _LOADER_OPTIONS[name], epoch))
        petastorm_rates.append(_measure_petastorm(folder))
    figures = []
    for name, rates in loader_rates.items():
        for reader, reader_rates in (("baseline", baseline_rates), (_BY_ROW, petastorm_rates)):
            best, reader_best = max(rates), max(reader_rates)
            measurement = f"{best / reader_best:.2f} ({best:,.0f} / {reader_best:,.0f} images/s)"
            goal = _GOALS.get((name, reader), "")
            figures.append(Figure(f"feed, {name} / {reader}", measurement, goal))
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


def _measure_petastorm(folder: Path) -> float:
    """Return the images per second of petastorm with one element per row.

    Args:
        folder: Folder of the dataset.
    """
    paths = sorted(folder.glob("split=train/*.parquet"))
    command = [sys.executable, "-m", _PETASTORM_SCRIPT, *map(str, paths)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
