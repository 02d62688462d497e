"""Jobs whose tasks write to an object store."""

import json

import pytest

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path
from tests.helpers.object_store import BUCKET, names, served


@pytest.fixture(scope="module")
def environment():
    with served() as found:
        yield found


def test_preprocess_over_what_a_killed_one_left(jobs, home, dataset, environment):
    out = f"{BUCKET}/data"
    left = "split=train/part-00000-01234567-89ab-cdef-0123-456789abcdef.parquet"
    for name in (".unfinished", left):
        storage.touch(parse_path(f"{out}/{name}"))
    options = ("--config", "small.yaml", "--input", "faces.csv", "--output", out)
    jobs.run("preprocess", *options, cwd=home, **environment).expect_success()
    made = StoredDataset.open(parse_path(out)).manifest
    StoredDataset.open(parse_path(out)).require_all_files()
    assert made.checksum == dataset.manifest["checksum"]
    # What is younger than a day may be another job's that is still writing.
    assert names(out) - {*made.all_files()} == {"manifest.json", "config.yaml", left}


def test_score(jobs, home, environment):
    out = f"{BUCKET}/scores"
    score = ("score", "--input", "faces.csv", "--output", out)
    jobs.run(*score, cwd=home, **environment).expect_success()
    made = json.loads(storage.read_text(parse_path(f"{out}/scores.json")))
    files = {file["path"] for file in made["files"]}
    assert files
    assert names(out) == {*files, "scores.json", "config.yaml"}
    jobs.run(*score, cwd=home, **environment).expect_error("holds scores already")
