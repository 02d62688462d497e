"""Jobs whose tasks write to an object store."""

import json
import zipfile

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.scores import read_scores
from fer_pipeline.io import storage
from fer_pipeline.io.paths import get_filesystem, parse_path
from tests.helpers.fer_csv import make_image
from tests.helpers.images import encode_image
from tests.helpers.object_store import BUCKET, list_objects


def test_preprocess_keeps_young_files_of_another_job(home, dataset, shared_process):
    out = f"{BUCKET}/data"
    leftover = "split=train/part-00000-01234567-89ab-cdef-0123-456789abcdef.parquet"
    for name in (".unfinished", leftover):
        storage.touch(parse_path(f"{out}/{name}"))
    options = ("--config", "small.yaml", "--input", "faces.csv", "--output", out)
    shared_process.run("preprocess", *options, cwd=home).expect_success()
    stored = StoredDataset.open(parse_path(out))
    stored.require_all_files()
    assert stored.checksum == dataset.manifest["checksum"]
    # A file younger than a day may belong to another job that is still writing.
    assert list_objects(out) - {*stored.manifest.all_files()} == {
        "manifest.json",
        "config.yaml",
        leftover,
    }


def test_score_writes_to_an_object_store(home, shared_process):
    out = f"{BUCKET}/scores"
    score = ("score", "--input", "faces.csv", "--output", out)
    shared_process.run(*score, cwd=home).expect_success()
    scores = json.loads(storage.read_text(parse_path(f"{out}/scores.json")))
    files = {file["path"] for file in scores["files"]}
    assert files
    assert list_objects(out) == {*files, "scores.json", "config.yaml"}
    shared_process.run(*score, cwd=home).expect_error("holds scores already")


NAMES = ("a.png", "k\u00e4se.png", "12:30.png", "[b] {c}*?#%2F+.png", "sub/folder/d.png")


def test_images_in_an_object_store_are_scored(home, shared_process, tmp_path):
    """Images of a folder, and of an archive."""
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for seed, name in enumerate(NAMES):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(".png", make_image(seed)))
            archive.write(path, name)
            storage.copy(path, parse_path(f"{BUCKET}/images/{name}"))
    storage.copy(tmp_path / "faces.zip", parse_path(f"{BUCKET}/faces.zip"))
    # Consoles of object stores write such an object for a folder.
    get_filesystem(parse_path(BUCKET)).pipe_file(f"{BUCKET}/images/empty folder/", b"")

    rows = {}
    for location in (tmp_path / "images", f"{BUCKET}/images", f"{BUCKET}/faces.zip"):
        output = tmp_path / "scores"
        options = ("--input", str(location), "--output", str(output), "--overwrite")
        shared_process.run("score", *options, cwd=home).expect_success()
        table = read_scores(output).sort_by("source")
        assert table.column("source").to_pylist() == [
            f"{location}/{name}" for name in sorted(NAMES)
        ]
        rows[location] = table.drop_columns("source")
    first, *others = rows.values()
    assert others == [first, first]


def test_inputs_in_an_object_store_are_read(home, dataset, shared_process, tmp_path):
    storage.copy(home / "faces.csv", parse_path(f"{BUCKET}/in/part one/faces.csv"))
    for location in (f"{BUCKET}/in", f"{BUCKET}/in/*/f*.csv"):
        options = (
            "--config",
            "small.yaml",
            "--input",
            location,
            "--output",
            str(tmp_path / "data"),
        )
        shared_process.run("preprocess", *options, "--overwrite", cwd=home).expect_success()
        assert StoredDataset.open(tmp_path / "data").checksum == dataset.manifest["checksum"]
