"""Mistakes in the arguments of a job, which are answered before Spark or TensorFlow is imported."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fer_pipeline import console
from fer_pipeline.data import synthetic
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference.trained_model import ModelInfo
from tests.helpers.folders import read_files
from tests.helpers.processes import ROOT, make_job_environment
from tests.helpers.stored_datasets import (
    CHECKSUM,
    CLASSES,
    SIZE,
    Rowset,
    make_faces,
    write_dataset,
)

SLOW_PACKAGES = ["keras", "matplotlib", "pandas", "pyspark", "scipy", "sklearn", "tensorflow"]

# Runs the commands of stdin, and writes the exit status and the error line of each to stdout.
RUN_COMMANDS = f"""
import contextlib, io, json, os, sys
from fer_pipeline import console

outcomes = []
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            status = console.main(arguments)
        except SystemExit as error:
            status = error.code
    loaded = [name for name in {SLOW_PACKAGES} if name in sys.modules]
    outcomes.append([status, stderr.getvalue().splitlines()[-1], loaded])
json.dump(outcomes, sys.stdout)
"""

TRAIN = "train --dataset data --output new"
EVALUATE = "evaluate --dataset data --output new"
COMPARE = "compare run compact --dataset data --output new"
EXPORT = "export --model run --output new"
PREPROCESS = "preprocess --input faces.csv --output new"
SCORE = "score --input faces.csv --output new"

MISTAKES = {
    f"{TRAIN} --set training.epoch=3": "unknown key, did you mean training.epochs?",
    f"{TRAIN} --set training.epochs=0": "training.epochs: Input should be greater than 0",
    f"{TRAIN} --set model.name=sytem_a": "unknown network 'sytem_a', did you mean system_a?",
    f"{TRAIN} --set model.name=my.network": "no module my for my.network",
    f"{TRAIN} --set model.options.hiden=64": "no option hiden; its options are hidden",
    f"{TRAIN} --set model.name=system_e": "system_e cannot be built for 16x16 pixels",
    f"{TRAIN} --set training.class_weights.fear=2": "fear is no class of the dataset",
    f"{TRAIN} --set training.schedule.warmup_epochs=10": "the run has only",
    f"{TRAIN} --set training.distillation.teachers=[mirrored]": "trained with a different classes",
    f"{TRAIN} --config nope.yaml": "nope.yaml: no such file",
    f"{TRAIN} --resume": "new: there is no run to resume",
    f"{TRAIN} --workers 2 --set loader.batch_size=1": "loader.batch_size: is 1, and each of 2",
    f"{TRAIN} --workers 2 --set tracking.mlflow.enabled=true": "mlflow.uri: with --workers",
    f"{TRAIN} --workers 2 --set model.name=sytem_a": "did you mean system_a?",
    "train --dataset nope --output new": "nope: no such folder",
    "train --dataset damaged --output new": "is missing, the manifest says",
    "train --dataset without_validation --output new --set training.restarts=2": "restarts: ",
    "train --dataset data --output run": "holds a finished training run already; --overwrite",
    "train --dataset data --output notes": "is not empty and not a finished training run",
    f"{EVALUATE} --model mirored": "no such folder (no model.json); did you mean mirrored?",
    f"{EVALUATE} --model runs/mirored": "train job, or name compact or mirrored",
    f"{EVALUATE} --model mirrored": "its classes are angry, happy, sad, the model of",
    f"{EVALUATE} --model run --image 99": "--image 99: the test split of data has 8 rows",
    f"{EVALUATE} --model run --backend litert": "run: has no export",
    f"{EVALUATE} --set inference.batch=3": "unknown key, did you mean inference.batch_size?",
    f"{EVALUATE} --config nope.yaml": "nope.yaml: no such file",
    "evaluate --dataset nope --output new": "nope: no such folder",
    "evaluate --dataset data --output notes": "is not empty and not an evaluation",
    f"{COMPARE} --set inference.batch=3": "unknown key",
    f"{COMPARE} --set inference.backend=litert": "a comparison runs Keras",
    COMPARE: "does not fit the dataset: data: its classes are",
    "compare run mirored --dataset data --output new": "did you mean mirrored?",
    "compare run run --dataset data --output new": "is given twice",
    "compare run compact --dataset nope --output new": "nope: no such folder",
    "compare run compact --dataset data --output notes": "is not empty and not a comparison",
    f"{EXPORT} --set sed=3": "unknown key, did you mean seed?",
    f"{EXPORT} --dataset nope": "nope: no such folder",
    f"{EXPORT} --format litert_int8": "litert_int8 is calibrated on images",
    "export --model mirored": "did you mean mirrored?",
    "export --model mirrored": "is a bundled model; choose a folder of your own with --output",
    "export --model mirrored --output new --dataset data": "its classes are angry, happy, sad",
    "export --model run --output notes": "is not empty and not an export",
    "preview --dataset data": "nothing to preview",
    "preview --dataset nope --set training.mixup_alpha=1": "nope: no such folder",
    "preview --dataset data --set training.mixup_alpha=1 --output a.jpg": "a preview is a PNG file",
    "preview --dataset data --set training.mixup_alfa=1": "unknown key",
    "summarize --set model.name=sytem_a": "did you mean system_a?",
    "summarize --set model.options.hiden=64": "no option hiden",
    "summarize --dataset nope": "nope: no such folder",
    "summarize --output graph.jpg": "a network graph can be saved as",
    f"{PREPROCESS} --set image.sise=28": "unknown key, did you mean image.size?",
    f"{PREPROCESS} --config nope.yaml": "nope.yaml: no such file",
    "preprocess --input nope.csv --output new": "nope.csv: no such file or folder",
    "preprocess --input *.png --output new": "*.png: nothing has such a name",
    "preprocess --input data --output new": "data: is a finished dataset",
    "preprocess --input faces.csv --output notes": "is not empty and not a dataset",
    "preprocess --input faces.csv --output data": "holds a dataset already; --overwrite",
    f"{PREPROCESS} --set labels.votes=nope.csv": "nope.csv: no such file",
    "score --input data faces.csv --output new": "data: is a dataset, which is scored alone",
    "score --input zip://*.png::nope.zip --output new": "nope.zip: no such file or folder",
    "score --input nope*.png --output new": "nope*.png: nothing has such a name",
    f"{SCORE} --model mirored": "did you mean mirrored?",
    f"{SCORE} --min-confidence 2": "--min-confidence: Input should be less than 1",
    f"{SCORE} --model run --backend litert": "run: has no export",
    "score --input nope --output new": "nope: no such file or folder",
    "score --input damaged --output new": "is missing, the manifest says",
    "score --input faces.csv --output notes": "is not empty and not scores",
}
"""The decisive words of the error, by the command that causes it."""


@dataclass(frozen=True)
class Outcome:
    """The end of a job: its exit status, its last line on stderr, and the packages it imported."""

    status: int
    line: str
    slow_packages: list[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV file, datasets, a run without a network, and a folder of a user's own."""
    folder = tmp_path_factory.mktemp("early")
    synthetic.write_csv(folder / "faces.csv", 12, seed=1)
    faces: dict[str, Rowset] = {
        split: make_faces(8, seed) for seed, split in enumerate(("train", "validation", "test"))
    }
    write_dataset(folder / "data", faces)
    write_dataset(folder / "without_validation", {"train": faces["train"]})
    next(write_dataset(folder / "damaged", faces).glob("split=train/*")).unlink()
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").write_text("buy milk")
    _write_run(folder / "run")
    return folder


def _write_run(folder: Path) -> None:
    """Write a finished run, whose network is never loaded here."""
    folder.mkdir()
    content = b"a network"
    (folder / RunFile.MODEL).write_bytes(content)
    model_info = ModelInfo(
        classes=list(CLASSES),
        size=SIZE,
        normalization=Normalization.centered(),
        dataset_checksum=CHECKSUM,
        network="system_a",
        options={},
        parameters=1,
        best_step=1,
        best_accuracy=None,
        seed=1,
        sha256=hashlib.sha256(content).hexdigest(),
        versions={},
    )
    (folder / RunFile.MODEL_INFO).write_text(model_info.model_dump_json())


def test_the_table_covers_all_jobs():
    jobs = {command.partition(" ")[0] for command in MISTAKES}
    assert jobs == {name for name in console.describe_jobs() if name != console.JOBS_PATH}


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """The outcome of each command; all of them run in one process."""
    before = read_files(folder)
    process = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS],
        input=json.dumps([command.split() for command in MISTAKES]),
        env={**make_job_environment(), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert read_files(folder) == before, "a job wrote something"
    return dict(
        zip(MISTAKES, (Outcome(*entry) for entry in json.loads(process.stdout)), strict=True)
    )


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_line_before_a_slow_import(command, outcomes):
    outcome = outcomes[command]
    assert outcome.line.startswith("error: ")
    assert MISTAKES[command] in outcome.line
    assert (outcome.status, outcome.slow_packages) == (1, [])
