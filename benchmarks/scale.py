"""Time and memory of preprocessing, training and scoring on a cluster, for two sizes of the input.

The input is FER2013 repeated 4 and 16 times. The jobs preprocess it as in system A, with a mirror
image and a rotation of each training image, train system A's network for one epoch on both workers,
and score all images of the dataset. Spark has heaps of 512 MB.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

from benchmarks import data
from benchmarks.figure import Figure
from benchmarks.submit import CORES, FOLDER, JobCost, run_cluster, submit_job
from tests.helpers.standalone_cluster import Cluster

_SMALL_REPEAT = 4
_LARGE_REPEAT = 16
_CONFIG = ("--config", str(data.ROOT / "conf" / "system_a.yaml"))
# The rows do not fit into memory, and small batches would take too long.
_TRAINING_SETTINGS = (
    "loader.cache_in_memory=false",
    "loader.batch_size=256",
    "training.steps=null",
    "training.epochs=1",
    "training.validate_every_steps=null",
)


@dataclass(frozen=True)
class _Measurement:
    """Cost of a job.

    Attributes:
        row_count: Number of rows that the job processes.
        cost: Time and memory of the job.
    """

    row_count: int
    cost: JobCost


def run() -> list[Figure]:
    """Run the jobs on both inputs, and return their costs and how these grow."""
    with run_cluster() as cluster:
        small = _run_jobs(cluster, _SMALL_REPEAT)
        large = _run_jobs(cluster, _LARGE_REPEAT)
    return [figure for job in small for figure in _make_figures(job, small[job], large[job])]


def _run_jobs(cluster: Cluster, repeat: int) -> dict[str, _Measurement]:
    """Run preprocess, train and score on a repeated FER2013.

    Args:
        cluster: Cluster to run the jobs on.
        repeat: Number of copies of each row of FER2013.

    Returns:
        The measurement of each job by its name.
    """
    source = data.ensure_csv(repeat)
    dataset, model, scores = FOLDER / "dataset", FOLDER / "run", FOLDER / "scores"
    preprocess_options = ("--input", str(source), "--output", str(dataset))
    preprocess_cost = submit_job(cluster, "preprocess", *_CONFIG, *preprocess_options)
    manifest = json.loads((dataset / "manifest.json").read_text())
    read_count, written_count = manifest["rows"]["read"], manifest["rows"]["written"]
    bytes_per_row = sum(file["bytes"] for file in manifest["files"]) / written_count
    print(
        f"{read_count:,} rows read, {written_count:,} rows written, {bytes_per_row:,.0f} bytes"
        " per row",
        flush=True,
    )
    settings = [part for setting in _TRAINING_SETTINGS for part in ("--set", setting)]
    train_options = ("--workers", str(CORES), "--dataset", str(dataset), "--output", str(model))
    train_cost = submit_job(cluster, "train", *_CONFIG, *settings, *train_options)
    score_options = ("--model", str(model), "--input", str(dataset), "--output", str(scores))
    score_cost = submit_job(cluster, "score", *score_options)
    for folder in (dataset, model, scores):
        shutil.rmtree(folder)
    return {
        "preprocess": _Measurement(read_count, preprocess_cost),
        "train": _Measurement(sum(manifest["counts"]["train"].values()), train_cost),
        "score": _Measurement(written_count, score_cost),
    }


def _make_figures(job: str, small: _Measurement, large: _Measurement) -> list[Figure]:
    """Return the cost of a job, and how it grows with the number of rows.

    Args:
        job: Name of the job.
        small: Measurement with the smaller input.
        large: Measurement with the larger input.
    """
    seconds, small_seconds = large.cost.seconds, small.cost.seconds
    growth_per_row = (seconds / large.row_count) / (small_seconds / small.row_count)
    # The difference excludes the fixed cost of a job, which does not depend on the rows.
    seconds_per_row = (seconds - small_seconds) / (large.row_count - small.row_count)
    fixed_seconds = small_seconds - seconds_per_row * small.row_count
    ratio = f"x{_LARGE_REPEAT} / x{_SMALL_REPEAT}"
    figures = [
        Figure(
            f"{job}, {large.row_count:,} rows",
            f"{seconds:.0f} s ({small.row_count:,}: {small_seconds:.0f} s)",
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
