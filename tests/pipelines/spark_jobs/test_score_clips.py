"""Clips scored by Spark: rows, tracks, books and annotated copies."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_pipeline.errors import InputError
from tests.helpers import clips, portraits
from tests.helpers.clips import ENCODINGS
from tests.helpers.portraits import Picture
from tests.helpers.scoring import ScoreInputs, ScoringModel

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


def test_each_face_of_each_sampled_frame_is_one_row(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path
) -> None:
    scores = score_inputs(scoring_model, mixed_folder, settings=("inference.every=0.2",))
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


def test_each_row_is_counted_once(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, mixed_folder: Path
) -> None:
    manifest = score_inputs(scoring_model, mixed_folder, settings=("inference.every=0.2",)).manifest
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
