"""Preprocessing, training and scoring on a cluster, at 4 and at 16 times FER2013.

System A's dataset, with a mirror image and a rotation of each training image, one epoch of its
network on both workers, and scores for all that the dataset holds. Heaps of 512 MB.
"""

from __future__ import annotations

import json
import shutil

from benchmarks import data
from benchmarks.submit import CORES, FOLDER, Measured, cluster, submit
from tests.e2e.standalone import Cluster

_FEW, _MANY = 4, 16
_CONFIG = ("--config", str(data.ROOT / "conf" / "system_a.yaml"))
# Who has many rows has neither room for all of them nor time for batches of 32.
_EPOCH = (
    *("loader.cache_in_memory=false", "loader.batch_size=256", "training.steps=null"),
    *("training.epochs=1", "training.validate_every_steps=null"),
)


def run() -> list[tuple[str, str, str]]:
    """Measures; returns (what, measured, goal) for each figure."""
    with cluster() as made:
        few, many = (_measured(made, repeat) for repeat in (_FEW, _MANY))
    rows: list[tuple[str, str, str]] = []
    for job in few:
        rows += _figures(job, few[job], many[job])
    return rows


def _measured(made: Cluster, repeat: int) -> dict[str, tuple[int, Measured]]:
    """The rows that each job has to do with, and what it took."""
    source, dataset, model = data.csv(repeat), FOLDER / "dataset", FOLDER / "run"
    settings = [part for setting in _EPOCH for part in ("--set", setting)]
    prepared = submit(
        made, "preprocess", *_CONFIG, "--input", str(source), "--output", str(dataset)
    )
    manifest = json.loads((dataset / "manifest.json").read_text())
    read, written = manifest["rows"]["read"], manifest["rows"]["written"]
    bytes_per_row = sum(file["bytes"] for file in manifest["files"]) / written
    print(f"{read:,} rows read, {written:,} written of {bytes_per_row:,.0f} bytes", flush=True)
    of_training = ("--workers", str(CORES), "--dataset", str(dataset), "--output", str(model))
    trained = submit(made, "train", *_CONFIG, *settings, *of_training)
    scored = submit(
        *(made, "score", "--model", str(model), "--input", str(dataset)),
        *("--output", str(FOLDER / "scores")),
    )
    found = {
        "preprocess": (read, prepared),
        "train": (sum(manifest["counts"]["train"].values()), trained),
        "score": (written, scored),
    }
    for folder in (dataset, model, FOLDER / "scores"):
        shutil.rmtree(folder)
    return found


def _figures(
    job: str, few: tuple[int, Measured], many: tuple[int, Measured]
) -> list[tuple[str, str, str]]:
    """What a job takes, and how that grows."""
    (rows_few, took_few), (rows_many, took_many) = few, many
    per_row = (took_many.seconds / rows_many) / (took_few.seconds / rows_few)
    # Without what every job takes once, however many rows there are.
    further = (took_many.seconds - took_few.seconds) / (rows_many - rows_few)
    once = took_few.seconds - further * rows_few
    ratio = f"x{_MANY} / x{_FEW}"
    found = [
        (
            f"{job}, {rows_many:,} rows",
            f"{took_many.seconds:.0f} s ({rows_few:,}: {took_few.seconds:.0f} s)",
            "",
        ),
        (f"{job}, time per row, {ratio}", f"{per_row:.2f}", "at most 1.1"),
        (
            f"{job}, per million rows beyond the first",
            f"{further * 1e6 * CORES:.0f} core-seconds, and {once:.0f} s once",
            "",
        ),
    ]
    for kind, peak in took_many.peaks.items():
        megabytes = f"({peak >> 20} MB / {took_few.peaks[kind] >> 20} MB)"
        goal = "at most 1.2" if kind == "python worker" else ""
        what = f"{job}, peak of a {kind}, {ratio}"
        found.append((what, f"{peak / took_few.peaks[kind]:.2f} {megabytes}", goal))
    return found
