"""Clips scored by Spark: rows, tracks, books and annotated copies."""

from __future__ import annotations

import logging
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.errors import InputError
from fer_pipeline.faces.clips import read_clip_facts, read_frames
from fer_pipeline.faces.photographs import FaceOptions
from fer_pipeline.spark.find_clips import Clip
from fer_pipeline.spark.score_clips import ClipOptions, create_clip_source, plan_parts
from fer_pipeline.spark.score_images import score_source
from fer_pipeline.spark.score_writer import Predict, ScoringOptions
from tests.helpers import clips, portraits
from tests.helpers.clips import ENCODINGS
from tests.helpers.portraits import Picture
from tests.helpers.processes import block_packages, run_python
from tests.helpers.scoring import ScoreInputs, Scores, ScoringModel

pytestmark = pytest.mark.tensorflow

Row = dict[str, Any]

FACE = portraits.resize(portraits.load_astronaut()[20:260, 120:360], 0.5)
"""The astronaut's face and what is around it, RGB, 120 pixels wide and high."""

FACELESS = portraits.make_faceless(320, 240)


def make_frame(*positions: int) -> Picture:
    """Return a frame of 320x240 pixels, BGR, with faces at these distances from the left."""
    frame = FACELESS.copy()
    for left in positions:
        frame[60:180, left : left + 120] = FACE
    return np.ascontiguousarray(frame[..., ::-1])


def read_books(manifest: Row) -> tuple[int, int, int, int]:
    """Return the numbers of clips, frames, frames with faces, and faces."""
    keys = ("clips", "frames", "frames_with_faces", "faces")
    return tuple(manifest[key] for key in keys)


def select(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the rows of a file, in the order of the frames and faces."""
    selected = [row for row in rows if Path(row["source"]).name == name]
    return sorted(selected, key=lambda row: (row["frame"] or 0, row["face"] or 0))


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph, a clip, animated images, and a text that is named .mp4."""
    folder = tmp_path_factory.mktemp("mixed")
    photograph = portraits.encode(portraits.load_astronaut(), "JPEG", quality=95)
    (folder / "photograph.jpg").write_bytes(photograph)
    (folder / "still.gif").write_bytes(portraits.encode(portraits.load_astronaut(), "GIF"))
    video = [make_frame(10 + 8 * number) for number in range(8)] + [make_frame()] * 2
    (folder / "clip.mp4").write_bytes(clips.encode_video(video, ENCODINGS["h264.mp4"], rate=10))
    moving = [make_frame(10 * number) for number in range(4)]
    (folder / "moving.gif").write_bytes(clips.encode_animation(moving, "GIF", 200))
    (folder / "text.mp4").write_text("This is no video.\n" * 20)
    return folder


@pytest.fixture(scope="module")
def mixed_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for the annotated copies of `mixed_scores`."""
    return tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="module")
def mixed_scores(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path, mixed_copies: Path
) -> Scores:
    """Scores of the mixed folder, with a frame every 0.2 s."""
    settings = ("inference.every=0.2",)
    return score_inputs(scoring_model, mixed_folder, settings=settings, annotate=mixed_copies)


def test_each_face_of_each_sampled_frame_is_one_row(mixed_scores: Scores) -> None:
    scores = mixed_scores
    [*faces, last] = select(scores.rows, "clip.mp4")
    assert [(row["frame"], row["time"]) for row in faces] == [
        (n, pytest.approx(0.2 * n)) for n in range(4)
    ]
    assert {(row["track"], row["face"], row["reason"]) for row in faces} == {(1, 0, None)}
    assert (last["frame"], last["face"], last["track"]) == (4, None, None)
    assert (last["reason"], last["emotion"]) == ("no face", None)
    # The face moves by 8 pixels in each frame, and every second frame is read.
    assert np.diff([row["left"] for row in faces]) == pytest.approx(16, abs=4)
    [text] = select(scores.rows, "text.mp4")
    assert (text["frame"], text["time"], text["reason"]) == (0, None, "unreadable file")
    assert text["detail"]
    stills = select(scores.rows, "photograph.jpg") + select(scores.rows, "still.gif")
    assert {(row["frame"], row["time"], row["track"]) for row in stills} == {(None,) * 3}
    assert len(select(scores.rows, "moving.gif")) == 4


def test_each_row_is_counted_once(mixed_scores: Scores) -> None:
    manifest = mixed_scores.manifest
    assert read_books(manifest) == (3, 9, 8, 10)
    assert (manifest["images"], manifest["with_faces"]) == (2, 2)
    assert manifest["unreadable_clips"] == 1
    assert (manifest["scored"], manifest["unscored"], manifest["refused"]) == (10, {}, {})
    assert sum(file["rows"] for file in manifest["files"]) == 12
    assert (manifest["every"], manifest["smoothing"]) == (0.2, 1.0)


def test_without_a_time_videos_are_counted_and_an_animation_is_one_image(
    score_inputs: ScoreInputs,
    scoring_model: ScoringModel,
    mixed_folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        scores = score_inputs(scoring_model, mixed_folder)
    assert "not read: 2 videos; name a time between their frames with --every" in caplog.text
    names = Counter(Path(row["source"]).name for row in scores.rows)
    assert names == {"photograph.jpg": 1, "still.gif": 1, "moving.gif": 1}
    assert (scores.manifest["clips"], scores.manifest["images"]) == (0, 3)
    with pytest.raises(InputError, match=r"holds no image, only 1 video; name a time"):
        score_inputs(scoring_model, mixed_folder / "clip.mp4")


class TestSegments:
    """Clips that are divided among different numbers of tasks."""

    OPTIONS = ClipOptions(0.1, FaceOptions(size=12), 10**8, Enhancement())

    @pytest.fixture(scope="class")
    def long_clip(self) -> bytes:
        """A clip of 6 s with two faces, of which one moves and is missing for a while."""
        pictures = [
            make_frame(*([] if 20 <= number < 24 else [number]), 190) for number in range(60)
        ]
        return clips.encode_video(pictures, ENCODINGS["h264.mkv"], rate=10)

    def score(self, spark: SparkSession, clip: Clip, folder: Path, task_count: int) -> list[Row]:
        """Score a clip with the mean grey values of the parts of faces as probabilities."""

        def load() -> Predict:
            def predict(pixels: Any) -> Any:
                sums = pixels.reshape(len(pixels), 4, -1).sum(axis=2)[:, :3].astype(np.float32)
                return sums / sums.sum(axis=1, keepdims=True)

            return predict

        source = create_clip_source(spark, [clip], self.OPTIONS, task_count)
        folder.mkdir()
        totals = score_source(source, ScoringOptions(load, ["a", "b", "c"], 0.0, 1.0), folder)
        return [
            row
            for file in totals.files
            for row in pq.ParquetFile(folder / file["path"]).read().to_pylist()
        ]

    @pytest.mark.parametrize("is_truncated", [False, True])
    def test_the_rows_are_the_same_for_any_number_of_segments(
        self, spark: SparkSession, long_clip: bytes, tmp_path: Path, is_truncated: bool
    ) -> None:
        path = tmp_path / "clip.mkv"
        path.write_bytes(long_clip[: len(long_clip) * 2 // 3] if is_truncated else long_clip)
        clip = Clip(str(path), path.stat().st_size, read_clip_facts(path), None)
        results = []
        for count in (1, 3, 7):
            parts, _ = plan_parts([clip], 0.1, count)
            assert len(parts) == count
            results.append(self.score(spark, clip, tmp_path / str(count), count))
        assert results[0] == results[1] == results[2]
        faces = [row for row in results[0] if row["face"] is not None]
        assert {row["track"] for row in faces} == {1, 2}
        if is_truncated:
            assert results[0][-1]["reason"] == "unreadable file"
            assert results[0][-1]["frame"] == results[0][-2]["frame"] + 1
            assert len(faces) > 40
        else:
            assert Counter(row["track"] for row in faces) == {1: 56, 2: 60}
            assert {row["reason"] for row in results[0]} == {None}


def test_frames_are_addressed_by_their_times(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
) -> None:
    times = [0, 40, 900, 1000, 1700, 3000]
    pictures = [make_frame(10 + 20 * number) for number in range(len(times))]
    content = clips.encode_video(pictures, ENCODINGS["h264.mkv"], times=times)
    (tmp_path / "variable.mkv").write_bytes(content)
    rows = score_inputs(scoring_model, tmp_path, settings=("inference.every=0.5",)).rows
    rows.sort(key=lambda row: row["frame"])
    # At 0.5 s the second frame is shown, at 1 s the fourth, at 2 s the fifth, at 3 s the last.
    assert [(row["frame"], row["time"]) for row in rows] == [
        (0, 0.0),
        (1, 0.04),
        (2, 1.0),
        (4, 1.7),
        (6, 3.0),
    ]


def test_probabilities_are_smoothed_along_the_track(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path
) -> None:
    path = mixed_folder / "clip.mp4"
    smoothed, raw = (
        score_inputs(
            scoring_model, path, settings=("inference.every=0.2", f"inference.smoothing={width}")
        ).rows
        for width in (0.5, 0)
    )
    values, raw_values = (
        np.array([[row["p_angry"], row["p_happy"], row["p_sad"]] for row in rows if row["emotion"]])
        for rows in (select(smoothed, "clip.mp4"), select(raw, "clip.mp4"))
    )
    faces = [row["face_image"] for row in select(raw, "clip.mp4") if row["face_image"]]
    pixels = [np.frombuffer(image, np.uint8).reshape(12, 12) for image in faces]
    assert raw_values == pytest.approx(scoring_model.predict(pixels), abs=1e-5)
    near, far = (1 + np.cos(np.pi * np.array([0.4, 0.8]))) / 2
    expected = (raw_values[0] + near * raw_values[1] + far * raw_values[2]) / (1 + near + far)
    assert values[0] == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(values, raw_values, atol=1e-3)
    names = ["angry", "happy", "sad"]
    best = [row["emotion"] for row in select(smoothed, "clip.mp4") if row["emotion"]]
    assert best == [names[index] for index in values.argmax(axis=1)]


def test_clips_have_an_annotated_video_a_plot_and_a_table(
    mixed_scores: Scores, mixed_copies: Path
) -> None:
    assert mixed_scores.manifest["clips"] == 3
    copies = mixed_copies
    endings = (".timeline.csv", ".timeline.png", ".webm")
    expected = {f"{name}{ending}" for name in ("clip.mp4", "moving.gif") for ending in endings}
    assert {path.name for path in copies.iterdir()} == expected | {
        "photograph.jpg.jpg",
        "still.gif.jpg",
    }
    frames = list(read_frames(copies / "clip.mp4.webm"))
    assert [round(frame.time, 3) for frame in frames] == [number / 10 for number in range(10)]
    # The face leaves the clip before 0.8 s; in small clips the copies are larger.
    differences = [
        np.abs(portraits.resize(frame.pixels, 0.5).astype(int) - picture).max(axis=2)
        for frame, picture in ((frames[0], make_frame(10)), (frames[9], make_frame()))
    ]
    assert frames[0].pixels.shape == (480, 640, 3)
    assert np.percentile(differences[0], 99) > 150
    assert np.percentile(differences[1], 99) < 60
    table = (copies / "clip.mp4.timeline.csv").read_text().splitlines()
    assert table[0].startswith("frame,time,track,face,emotion,confidence,p_angry")
    assert [line.split(",")[0] for line in table[1:]] == ["0", "1", "2", "3"]
    assert (copies / "clip.mp4.timeline.png").read_bytes().startswith(b"\x89PNG")


def test_a_face_of_low_quality_is_refused_and_keeps_its_track(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, tmp_path: Path
) -> None:
    small = [portraits.resize(make_frame(10 + 10 * number), 0.6) for number in range(3)]
    (tmp_path / "small.webp").write_bytes(clips.encode_animation(small, "WEBP", 200, lossless=True))
    (tmp_path / "photograph.png").write_bytes(portraits.encode(portraits.load_astronaut()))
    settings = ("inference.every=0.2", "inference.min_quality=0.9", "inference.faces=crop")
    scores = score_inputs(scoring_model, tmp_path, settings=settings)
    rows = select(scores.rows, "small.webp")
    assert [(row["frame"], row["track"], row["emotion"], row["reason"]) for row in rows] == [
        (number, 1, None, "low quality") for number in range(3)
    ]
    assert scores.manifest["refused"] == {"low quality": 3}
    # Faces are searched for in frames, although the photograph is taken for a crop.
    assert scores.manifest["detector"] is not None
    assert (scores.manifest["images"], scores.manifest["with_faces"]) == (1, 0)


def test_clips_that_cannot_be_opened_are_rows_with_the_reason(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        for name in ("clip.mp4", "moving.gif"):
            archive.write(mixed_folder / name, name)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.MOV").symlink_to(tmp_path / "nothing")
    (folder / "empty.avi").touch()
    scores = score_inputs(
        scoring_model, tmp_path / "files.zip", folder, settings=("inference.every=0.2",)
    )
    details = {
        Path(row["source"]).name: row["detail"]
        for row in scores.rows
        if row["reason"] == "unreadable file"
    }
    assert details.keys() == {"clip.mp4", "link.MOV", "empty.avi"}
    assert details["clip.mp4"] == "is a member of an archive; unpack it to read its frames"
    assert details["link.MOV"].startswith("a link to nothing")
    assert details["empty.avi"] == "no bytes"
    manifest = scores.manifest
    assert (manifest["clips"], manifest["unreadable_clips"], manifest["frames"]) == (3, 3, 0)
    # The animated image in the archive is one image.
    assert (manifest["images"], manifest["scored"]) == (1, 1)


def test_all_rows_of_clips_that_cannot_be_read_are_an_error(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path
) -> None:
    with pytest.raises(
        InputError, match=r"only 0 of 1 images, frames and faces .*unreadable file: 1"
    ):
        score_inputs(scoring_model, mixed_folder / "text.mp4", settings=("inference.every=1",))


@pytest.mark.parametrize("annotate", [False, True])
def test_without_pyav_the_extra_is_named(
    mixed_folder: Path, tmp_path: Path, annotate: bool
) -> None:
    blocker = block_packages(tmp_path / "blocker", ["av"])
    # An animation needs PyAV only for its annotated copy.
    name = "moving.gif" if annotate else "clip.mp4"
    options = ("--annotate", tmp_path / "copies") if annotate else ()
    job = run_python(
        *("-m", "fer_pipeline", "score", "--input", mixed_folder / name, "--every", "0.2"),
        *("--output", tmp_path / "scores", *options),
        path=[blocker],
    )
    assert job.returncode == 1
    last = job.stderr.strip().splitlines()[-1]
    assert last == "error: av is not installed: pip install 'fer_pipeline[video]'"
