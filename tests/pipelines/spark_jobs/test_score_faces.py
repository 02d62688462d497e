"""The faces of photographs, scored by Spark: rows, books and options."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from fer_pipeline import FaceScorer
from fer_pipeline.errors import InputError, StorageError
from fer_pipeline.io.output_kinds import SCORE_TABLES
from tests.helpers import portraits
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.portraits import FACE
from tests.helpers.scoring import COLUMNS, ScoreInputs, ScoringModel

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one face, two faces, no face, a crop, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photographs")
    astronaut = portraits.load_astronaut()
    pair = np.hstack([astronaut, astronaut])
    pictures = {
        "one.jpg": portraits.encode(astronaut, "JPEG", quality=95),
        "two.png": portraits.encode(pair),
        "none.png": portraits.encode(portraits.make_faceless()),
        "crop.png": portraits.encode(portraits.resize(astronaut[60:190, 160:290], 0.4)),
        "broken.png": portraits.encode(astronaut)[:3000],
    }
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    return folder


def count_faces(rows: list[dict]) -> Counter[tuple[str, int | None, str | None]]:
    """Return the numbers of rows by file, face and reason."""
    return Counter((Path(row["source"]).name, row["face"], row["reason"]) for row in rows)


def test_each_face_is_one_row_and_each_image_is_accounted_for(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, photographs: Path
) -> None:
    scores = score_inputs(scoring_model, photographs)
    assert count_faces(scores.rows) == {
        ("one.jpg", 0, None): 1,
        ("two.png", 0, None): 1,
        ("two.png", 1, None): 1,
        ("none.png", None, "no face"): 1,
        ("crop.png", None, None): 1,
        ("broken.png", None, "undecodable image"): 1,
    }
    manifest = scores.manifest
    assert (manifest["images"], manifest["with_faces"], manifest["faces"]) == (5, 2, 3)
    assert manifest["scored"] == 4 == sum(manifest["emotions"].values())
    assert manifest["unscored"] == {"no face": 1, "undecodable image": 1}
    assert manifest["refused"] == {}
    assert manifest["detector"]["name"] == "auto"
    [portrait] = [row for row in scores.rows if row["source"].endswith("one.jpg")]
    box = portrait["left"], portrait["top"], portrait["width"], portrait["height"]
    assert portraits.compute_overlap(box, FACE) > 0.6
    assert len(portrait["face_image"]) == 12 * 12


def test_the_mode_crop_scores_each_image_as_a_face(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, photographs: Path
) -> None:
    scores = score_inputs(scoring_model, photographs, settings=("inference.faces=crop",))
    assert all(row["face"] is None for row in scores.rows)
    assert (scores.manifest["scored"], scores.manifest["detector"]) == (4, None)


def test_faces_of_low_quality_are_refused_with_their_position(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
) -> None:
    astronaut = portraits.load_astronaut()
    (tmp_path / "large.png").write_bytes(portraits.encode(astronaut))
    (tmp_path / "small.png").write_bytes(portraits.encode(portraits.resize(astronaut, 0.3)))
    scores = score_inputs(scoring_model, tmp_path, settings=("inference.min_quality=0.9",))
    [large, small] = scores.rows
    assert large["emotion"] is not None
    assert (small["emotion"], small["reason"], small["face"]) == (None, "low quality", 0)
    assert small["quality"] < 0.9
    manifest = scores.manifest
    assert (manifest["images"], manifest["faces"], manifest["scored"]) == (2, 2, 1)
    assert manifest["refused"] == {"low quality": 1}


def test_the_scores_are_those_of_the_face_scorer(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, photographs: Path
) -> None:
    scores = score_inputs(scoring_model, photographs / "two.png", photographs / "one.jpg")
    results = FaceScorer(scoring_model.folder).score(
        [photographs / "one.jpg", photographs / "two.png"]
    )
    faces = [face for image in results for face in image.faces]
    rows = sorted(scores.rows, key=lambda row: (row["source"], row["face"]))
    assert [row["emotion"] for row in rows] == [face.emotion for face in faces]
    assert [row["face_image"] for row in rows] == [face.pixels.tobytes() for face in faces]


def test_a_folder_in_which_no_face_is_found_is_an_error(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
) -> None:
    (tmp_path / "none.png").write_bytes(portraits.encode(portraits.make_faceless()))
    with pytest.raises(InputError, match=r"only 0 of 1 images could be scored \(no face: 1\)"):
        score_inputs(scoring_model, tmp_path)


def test_a_csv_has_no_photographs(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
) -> None:
    write_csv(tmp_path / "faces.csv", [format_row(0, make_image(1), "Training")])
    with pytest.raises(InputError, match="is a CSV of crops; score it with --faces crop"):
        score_inputs(scoring_model, tmp_path / "faces.csv", settings=("inference.faces=detect",))


class TestFormat:
    def test_csv_and_json_lines_hold_all_rows_but_no_images(
        self, score_inputs: ScoreInputs, scoring_model: ScoringModel, photographs: Path
    ) -> None:
        for table_format, name in SCORE_TABLES.items():
            scores = score_inputs(
                scoring_model, photographs, settings=(f"inference.format={table_format}",)
            )
            path = scores.folder / name
            if table_format == "csv":
                rows = pd.read_csv(path, keep_default_na=False).to_dict("records")
            else:
                rows = [json.loads(line) for line in path.read_text().splitlines()]
            columns = [column for column in COLUMNS if column != "face_image"]
            assert [list(row) for row in rows] == [columns] * len(scores.rows)
            written = sorted((row["source"], str(row["emotion"] or "")) for row in rows)
            assert written == sorted((row["source"], row["emotion"] or "") for row in scores.rows)

    def test_the_table_of_replaced_scores_is_deleted(
        self,
        score_inputs: ScoreInputs,
        scoring_model: ScoringModel,
        photographs: Path,
        tmp_path: Path,
    ) -> None:
        folder = tmp_path / "scores"
        for settings in (("inference.format=csv",), ()):
            score_inputs(scoring_model, photographs, to=folder, overwrite=True, settings=settings)
        assert not (folder / "scores.csv").exists()


class TestAnnotate:
    def test_each_scored_image_has_a_copy_at_the_same_path(
        self,
        score_inputs: ScoreInputs,
        scoring_model: ScoringModel,
        photographs: Path,
        tmp_path: Path,
    ) -> None:
        copies = tmp_path / "copies"
        score_inputs(scoring_model, photographs, annotate=copies)
        names = {path.relative_to(copies).as_posix() for path in copies.rglob("*.*")}
        assert names == {"one.jpg.jpg", "two.png.jpg", "crop.png.jpg"}
        copy = cv2.imread(str(copies / "one.jpg.jpg"), cv2.IMREAD_COLOR_RGB)
        assert copy is not None
        difference = np.abs(copy.astype(int) - portraits.load_astronaut()).max(axis=2)
        left, top, width, height = (round(length) for length in FACE)
        # Something is drawn around the face, and nothing in its middle or far from it.
        assert difference[top - 30 : top + height + 30, left - 30 : left + width + 30].max() > 100
        assert difference[top + 35 : top + 70, left + 35 : left + 70].mean() < 12
        assert difference[400:].mean() < 12

    def test_images_of_the_same_name_have_copies_of_their_own(
        self, score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
    ) -> None:
        paths = [tmp_path / name / "face.png" for name in ("a", "b")]
        for path in paths:
            path.parent.mkdir()
            path.write_bytes(portraits.encode(portraits.load_astronaut()))
        score_inputs(scoring_model, *paths, annotate=tmp_path / "copies")
        assert len(list((tmp_path / "copies").glob("*-face.png.jpg"))) == 2

    def test_a_folder_with_files_is_refused_before_any_work(
        self, score_inputs: ScoreInputs, scoring_model: ScoringModel, photographs: Path
    ) -> None:
        with pytest.raises(StorageError, match="is not empty; choose another folder"):
            score_inputs(scoring_model, photographs, annotate=photographs)

    def test_a_csv_cannot_be_annotated(
        self, score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
    ) -> None:
        path = write_csv(tmp_path / "faces.csv", [format_row(0, make_image(1), "Training")])
        with pytest.raises(InputError, match="only image files are annotated"):
            score_inputs(scoring_model, path, annotate=tmp_path / "copies")
