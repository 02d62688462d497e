"""Preprocessing, training and scoring on a cluster, with 4 and with 16 times FER2013.

System A's dataset, with a mirror image and a rotation of each training image; one epoch of its
network on both workers; and scores for all images of the dataset. Heaps of 512 MB.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

from benchmarks import data
from benchmarks.figure import Figure
from benchmarks.submit import CORES, FOLDER, JobCost, start_cluster, submit
from tests.helpers.standalone_cluster import Cluster

_SMALL_REPEAT = 4
_LARGE_REPEAT = 16
_CONFIG = ("--config", str(data.ROOT / "conf" / "system_a.yaml"))
# With many rows there is no memory for all of them, and no time for batches of 32.
_TRAINING_SETTINGS = (
    "loader.cache_in_memory=false",
    "loader.batch_size=256",
    "training.steps=null",
    "training.epochs=1",
    "training.validate_every_steps=null",
)


@dataclass(frozen=True)
class _Measurement:
    """The rows that a job processes, and its cost."""

    rows: int
    cost: JobCost


def run() -> list[Figure]:
    """Measure, and return all figures."""
    with start_cluster() as cluster:
        small = _run_jobs(cluster, _SMALL_REPEAT)
        large = _run_jobs(cluster, _LARGE_REPEAT)
    return [figure for job in small for figure in _make_figures(job, small[job], large[job])]


def _run_jobs(cluster: Cluster, repeat: int) -> dict[str, _Measurement]:
    """Run the three jobs on FER2013 repeated, and return the measurement of each."""
    source = data.write_csv(repeat)
    dataset, model, scores = FOLDER / "dataset", FOLDER / "run", FOLDER / "scores"
    preprocess_options = ("--input", str(source), "--output", str(dataset))
    preprocess_cost = submit(cluster, "preprocess", *_CONFIG, *preprocess_options)
    manifest = json.loads((dataset / "manifest.json").read_text())
    read, written = manifest["rows"]["read"], manifest["rows"]["written"]
    bytes_per_row = sum(file["bytes"] for file in manifest["files"]) / written
    print(f"{read:,} rows read, {written:,} written of {bytes_per_row:,.0f} bytes", flush=True)
    settings = [part for setting in _TRAINING_SETTINGS for part in ("--set", setting)]
    train_options = ("--workers", str(CORES), "--dataset", str(dataset), "--output", str(model))
    train_cost = submit(cluster, "train", *_CONFIG, *settings, *train_options)
    score_options = ("--model", str(model), "--input", str(dataset), "--output", str(scores))
    score_cost = submit(cluster, "score", *score_options)
    for folder in (dataset, model, scores):
        shutil.rmtree(folder)
    return {
        "preprocess": _Measurement(read, preprocess_cost),
        "train": _Measurement(sum(manifest["counts"]["train"].values()), train_cost),
        "score": _Measurement(written, score_cost),
    }


def _make_figures(job: str, small: _Measurement, large: _Measurement) -> list[Figure]:
    """Return the cost of a job, and how it grows with the rows."""
    seconds, small_seconds = large.cost.seconds, small.cost.seconds
    growth_per_row = (seconds / large.rows) / (small_seconds / small.rows)
    # Without the fixed cost of a job, which does not depend on the rows.
    seconds_per_row = (seconds - small_seconds) / (large.rows - small.rows)
    fixed_seconds = small_seconds - seconds_per_row * small.rows
    ratio = f"x{_LARGE_REPEAT} / x{_SMALL_REPEAT}"
    figures = [
        Figure(
            f"{job}, {large.rows:,} rows",
            f"{seconds:.0f} s ({small.rows:,}: {small_seconds:.0f} s)",
        ),
        Figure(f"{job}, time per row, {ratio}", f"{growth_per_row:.2f}", "at most 1.1"),
        Figure(
            f"{job}, per million rows beyond the first",
            f"{seconds_per_row * 1e6 * CORES:.0f} core-seconds, and {fixed_seconds:.0f} s once",
        ),
    ]
    for kind, peak in large.cost.peaks.items():
        small_peak = small.cost.peaks[kind]
        figures.append(
            Figure(
                f"{job}, peak of a {kind}, {ratio}",
                f"{peak / small_peak:.2f} ({peak >> 20} MB / {small_peak >> 20} MB)",
                "at most 1.2" if kind == "python worker" else "",
            )
        )
    return figures
