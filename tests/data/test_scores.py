import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.data.scores import ScoreFile, ScoreManifest, read_scores, read_scores_manifest
from fer_pipeline.errors import DatasetError
from fer_pipeline.io.output_kinds import SCORES, SCORES_FILE

EMOTIONS = ["happy", "sad", "happy"]


def write_file(path: Path, emotions: list[str]) -> ScoreFile:
    pq.write_table(pa.table({"emotion": emotions}), path)
    return ScoreFile(path=path.name, rows=len(emotions), bytes=path.stat().st_size)


def make_manifest(files: list[ScoreFile]) -> ScoreManifest:
    return ScoreManifest(
        images=3,
        scored=3,
        emotions={"happy": 2, "sad": 1},
        unscored={},
        files=files,
        model={"run": "/runs/a", "sha256": "0"},
        backend={"name": "keras"},
        flip_tta=False,
        min_confidence=0.0,
        versions={},
        created="2024-05-06T07:08:09+00:00",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scores in two files, and the file of an interrupted job."""
    files = [
        write_file(tmp_path / "scores-1.parquet", EMOTIONS[:2]),
        write_file(tmp_path / "scores-0.parquet", EMOTIONS[2:]),
    ]
    write_file(tmp_path / "scores-interrupted.parquet", ["angry"])
    (tmp_path / SCORES_FILE).write_text(make_manifest(files).model_dump_json())
    return tmp_path


def test_the_rows_of_the_listed_files_are_read_in_their_order(folder):
    assert read_scores(str(folder)).to_pydict() == {"emotion": EMOTIONS}
    assert read_scores(folder.as_uri()).to_pydict() == {"emotion": EMOTIONS}


def test_the_manifest_is_read_as_it_was_written(folder):
    assert read_scores_manifest(folder) == make_manifest(read_scores_manifest(folder).files)
    assert json.loads((folder / SCORES_FILE).read_text())["format"] == SCORES.format


@pytest.mark.parametrize("path", ["nothing", "."])
def test_a_folder_without_scores_is_refused(tmp_path, path):
    with pytest.raises(DatasetError, match=rf"has no {SCORES_FILE}"):
        read_scores(tmp_path / path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "fer_pipeline dataset"}, "format: Input should be 'fer_pipeline scores'"),
        ({"files": []}, "files: List should have at least 1 item"),
        ({"images": None}, "images: Input should be a valid integer"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_wrong_key(folder, change: dict[str, Any], words):
    path = folder / SCORES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DatasetError) as caught:
        read_scores(folder)
    assert str(caught.value).startswith(f"{path}: is damaged or of a different version ({words}")


def test_a_manifest_that_is_not_json_is_refused(folder):
    (folder / SCORES_FILE).write_text("{")
    with pytest.raises(DatasetError, match="the file: Invalid JSON"):
        read_scores(folder)


def test_a_file_that_is_missing_damaged_or_of_another_length_is_refused(folder):
    path = folder / "scores-0.parquet"
    write_file(path, EMOTIONS)
    with pytest.raises(DatasetError, match=rf"{path}: has 3 rows, {SCORES_FILE} states 1"):
        read_scores(folder)
    path.write_bytes(b"no Parquet")
    with pytest.raises(DatasetError, match=f"{path}: cannot be read"):
        read_scores(folder)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{path}: is missing"):
        read_scores(folder)
