"""Tests of the procedural stand-in for FER2013."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_pipeline.data import synthetic
from fer_pipeline.data.synthetic import BROKEN_KINDS, EMOTIONS, USAGES, draw_face, write_csv
from fer_pipeline.data.synthetic.__main__ import main
from tests.helpers.images import read_image

PIXELS = 48 * 48


def _read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="ascii") as file:
        return list(csv.reader(file))


def _find_fault(row: list[str]) -> str | None:
    """Return the fault of a CSV row by an independent implementation of the format."""
    if len(row) != 3:
        return "fields"
    emotion, pixels, usage = row
    values = pixels.split()
    if not values:
        return "no_pixels"
    if len(values) != PIXELS:
        return "pixel_count"
    if not all(pixel.isdigit() for pixel in values):
        return "pixel_word"
    if max(map(int, values)) > 255:
        return "pixel_range"
    if int(emotion) not in range(7):
        return "emotion"
    return None if usage in USAGES else "usage"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Rows of a file of 1,500 rows, 16 of them broken, header included."""
    path = tmp_path_factory.mktemp("synthetic") / "faces.csv"
    write_csv(path, rows=1500, seed=4, broken=16)
    return _read_rows(path)


@pytest.mark.parametrize("size", [16, 48, 101])
@pytest.mark.parametrize("code", range(7))
def test_face_is_a_grey_image_with_content(code: int, size: int) -> None:
    face = draw_face(code, np.random.default_rng(code), size)
    assert face.shape == (size, size)
    assert face.dtype == np.uint8
    assert face.std() > 8.0  # neither blank nor saturated


def test_equal_generators_draw_equal_faces_and_one_generator_draws_different_ones() -> None:
    first, again = np.random.default_rng(7), np.random.default_rng(7)
    faces = [draw_face(3, first) for _ in range(4)]
    np.testing.assert_array_equal(faces, [draw_face(3, again) for _ in range(4)])
    assert len({face.tobytes() for face in faces}) == 4


@pytest.mark.parametrize(("code", "size"), [(-1, 48), (7, 48), (0, 15)])
def test_face_refuses_unknown_codes_and_tiny_sizes(code: int, size: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        draw_face(code, np.random.default_rng(0), size)


def test_expressions_can_be_distinguished_but_not_trivially() -> None:
    rng = np.random.default_rng(11)
    labels = np.arange(1400) % 7
    faces = [draw_face(int(label), rng) for label in labels]
    small = [cv2.resize(face, (12, 12), interpolation=cv2.INTER_AREA).ravel() for face in faces]
    x = np.array(small, np.float64)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    train, test = slice(0, 1050), slice(1050, None)
    weights = np.linalg.solve(
        x[train].T @ x[train] + 30.0 * np.eye(144), x[train].T @ np.eye(7)[labels[train]]
    )
    hits = (x[test] @ weights).argmax(axis=1) == labels[test]
    # Chance is 0.14; a linear model on 12x12 pixels lands near 0.67.
    assert 0.55 < hits.mean() < 0.85
    per_class = [hits[labels[test] == code].mean() for code in range(7)]
    assert min(per_class) > 0.25


@pytest.mark.parametrize("code", range(6))
def test_only_the_surprised_mouth_is_a_dark_opening(code: int) -> None:
    def mouth_darkness(emotion: int) -> float:
        rng = np.random.default_rng(2)
        faces = np.array([draw_face(emotion, rng) for _ in range(150)], np.float64)
        mouths = faces[:, 33:43, 20:28].mean(axis=(1, 2))
        return float(np.mean(faces[:, 16:32, 14:34].mean(axis=(1, 2)) - mouths))

    assert (mouth_darkness(code) > mouth_darkness(6) + 12.0) == (EMOTIONS[code] == "surprise")


def test_csv_has_the_requested_rows_and_every_kind_of_broken_row(table: list[list[str]]) -> None:
    assert table[0] == ["emotion", "pixels", "Usage"]
    assert len(table) == 1 + 1500
    faults = [fault for fault in map(_find_fault, table[1:]) if fault]
    assert faults == [BROKEN_KINDS[i % 7] for i in range(16)]


def test_csv_follows_the_frequencies_of_fer2013(table: list[list[str]]) -> None:
    sound = [row for row in table[1:] if _find_fault(row) is None]
    usages = Counter(row[2] for row in sound)
    assert usages["Training"] / len(sound) == pytest.approx(0.8, abs=0.04)
    assert usages["PublicTest"] / len(sound) == pytest.approx(0.1, abs=0.03)
    labels = Counter(int(row[0]) for row in sound)
    assert max(labels, key=labels.__getitem__) == EMOTIONS.index("happy")
    assert min(labels, key=labels.__getitem__) == EMOTIONS.index("disgust")
    assert labels[1] / len(sound) == pytest.approx(547 / 35887, abs=0.012)


def test_csv_repeats_three_images_within_and_across_usages_and_labels(
    table: list[list[str]],
) -> None:
    seen: dict[str, list[tuple[str, str]]] = {}
    for row in table[1:]:
        if _find_fault(row) is None:
            seen.setdefault(row[1], []).append((row[0], row[2]))
    pairs = [rows for rows in seen.values() if len(rows) > 1]
    assert [len(rows) for rows in pairs] == [2, 2, 2]
    plain, leak, conflict = pairs
    assert plain[0] == plain[1]
    assert leak[0][0] == leak[1][0]
    assert (leak[0][1], leak[1][1]) == ("Training", "PrivateTest")
    assert conflict[0][0] != conflict[1][0]


def test_short_csv_has_no_duplicates_and_depends_only_on_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_csv(tmp_path / name, rows=40, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    rows = _read_rows(tmp_path / "a")[1:]
    assert [_find_fault(row) for row in rows] == [None] * 40
    assert len({row[1] for row in rows}) == 40


def test_csv_with_too_few_valid_rows_for_duplicates_is_still_written(tmp_path: Path) -> None:
    write_csv(tmp_path / "faces.csv", rows=200, broken=197)
    assert sum(_find_fault(row) is None for row in _read_rows(tmp_path / "faces.csv")[1:]) == 3


def test_interrupted_csv_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "faces.csv"
    target.write_text("old")
    monkeypatch.setattr(synthetic.files, "draw_face", fail)
    with pytest.raises(KeyboardInterrupt):
        write_csv(target, rows=3)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_contains_varied_crops_for_each_emotion(tmp_path: Path) -> None:
    synthetic.write_folder(tmp_path, per_class=8, seed=3)
    crops = sorted(tmp_path.glob("*/*"))
    assert Counter(path.parent.name for path in crops) == dict.fromkeys(EMOTIONS, 8)
    assert Counter(path.suffix for path in crops) == {".png": 28, ".jpg": 28}
    images = [read_image(path, cv2.IMREAD_UNCHANGED) for path in crops]
    sides = [side for image in images for side in image.shape[:2]]
    assert min(sides) >= 40
    assert max(sides) <= 160
    assert len(set(sides)) > 20
    colour = [image for image in images if image.ndim == 3]
    assert 10 < len(colour) < 46
    assert all(np.ptp(image.astype(int).mean(axis=(0, 1))) > 3.0 for image in colour)


def test_each_broken_file_has_its_own_fault(tmp_path: Path) -> None:
    synthetic.write_folder(tmp_path, per_class=0)
    assert (tmp_path / "empty.png").stat().st_size == 0
    assert cv2.imread(str(tmp_path / "text.jpg")) is None
    truncated = (tmp_path / "truncated.jpg").read_bytes()
    assert truncated.startswith(b"\xff\xd8")
    assert b"\xff\xd9" not in truncated  # the end-of-image marker is cut off


def test_a_flat_folder_contains_only_files_of_valid_images(tmp_path: Path) -> None:
    synthetic.write_folder(tmp_path, per_class=1, broken=False, flat=True)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_0000.png" for name in EMOTIONS}


def test_command_line_writes_both_kinds(tmp_path: Path) -> None:
    csv_file, folder = tmp_path / "a.csv", tmp_path / "faces"
    assert main(["csv", str(csv_file), "--rows", "9", "--seed", "5", "--broken", "2"]) == 0
    write_csv(tmp_path / "b.csv", rows=9, seed=5, broken=2)
    assert csv_file.read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert main(["folder", str(folder), "--per-class", "2"]) == 0
    assert len(list(folder.glob("*/*"))) == 14


def test_command_line_reports_bad_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["csv", str(tmp_path / "a.csv"), "--rows", "2", "--broken", "3"])
    assert stop.value.code == 2
    assert "broken must be within 0..2" in capsys.readouterr().err
