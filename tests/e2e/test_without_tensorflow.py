"""The jobs that run on Spark, where the extra spark is installed but no TensorFlow."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from fer_pipeline import read_scores
from fer_pipeline.data import synthetic
from fer_pipeline.extras import EXTRAS
from tests.helpers.processes import block_packages, run_python

# One process, because the start of Spark is most of the time of each job.
PROGRAM = """
import shlex, sys
from fer_pipeline import console
for command in (
    "preprocess --input faces.csv --output dataset",
    "score --input dataset --output scores",
    "score --input dataset --output refused --backend keras",
):
    print(console.main(shlex.split(command)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("without TensorFlow")


@pytest.fixture(scope="module")
def process(folder: Path) -> subprocess.CompletedProcess[str]:
    """The process of the jobs; its Python workers lack the same packages."""
    synthetic.write_csv(folder / "faces.csv", rows=60)
    missing = [package for package, extras in EXTRAS.items() if not {"spark", "java"} & {*extras}]
    blocked = block_packages(folder / "path", missing)
    return run_python("-c", PROGRAM, path=[blocked], cwd=folder)


def test_preprocess_and_score_run(process, folder) -> None:
    assert process.returncode == 0, process.stderr
    assert [line for line in process.stderr.splitlines() if line in "01"] == ["0", "0", "1"]
    scores = read_scores(folder / "scores")
    rows = json.loads((folder / "dataset" / "manifest.json").read_text())["rows"]["written"]
    assert Counter(scores["reason"].to_pylist()) == {None: rows}


def test_auto_runs_the_fastest_export(process, folder) -> None:
    backend = json.loads((folder / "scores" / "scores.json").read_text())["backend"]
    assert (backend["name"], backend["format"]) == ("litert", "litert_int8")
    assert backend["reason"].startswith("TensorFlow is not installed; ")


def test_keras_is_refused_by_the_driver(process, folder) -> None:
    *_, error, status = process.stderr.splitlines()
    assert status == "1"
    assert error == "error: tensorflow is not installed: pip install 'fer_pipeline[train]'"
    assert not (folder / "refused").exists()
