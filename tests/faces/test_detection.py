"""Detection of faces: by the networks themselves, on a photograph and on pictures made of it."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_pipeline.faces.blazeface import NETWORKS, make_anchors
from fer_pipeline.faces.detection import Faces, compute_overlaps, make_no_faces, merge_faces
from fer_pipeline.faces.detectors import DETECTOR_NAMES, DetectorOptions, describe_detector
from fer_pipeline.faces.photographs import find_faces
from fer_pipeline.faces.tiles import iterate_tiles
from tests.helpers import portraits
from tests.helpers.portraits import EYES, FACE, Box, Picture

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "photos"
MATCH = 0.35
"""Overlap from which on a box is a hit."""


def make_faces(*boxes: tuple[float, float, float, float, float]) -> Faces:
    """Return faces of given left, top, width, height and confidence, with landmarks in a corner."""
    columns = np.array(boxes, np.float32).reshape(-1, 5)
    landmarks = np.repeat(columns[:, None, :2], 4, axis=1)
    return Faces(columns[:, :4], landmarks, columns[:, 4])


def find_boxes(picture: Picture, options: DetectorOptions | None = None) -> list[Box]:
    """Return the boxes of the found faces."""
    return [tuple(box) for box in find_faces(picture, options or DetectorOptions()).boxes.tolist()]


@pytest.mark.parametrize("name", DETECTOR_NAMES)
def test_each_detector_finds_the_face_and_its_eyes(name: str) -> None:
    faces = find_faces(portraits.load_astronaut(), DetectorOptions(name))
    assert len(faces) == 1
    assert portraits.compute_overlap(tuple(faces.boxes[0].tolist()), FACE) > 0.6
    np.testing.assert_allclose(faces.landmarks[0, :2], EYES, atol=8)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 4])
def test_the_size_of_the_picture_does_not_matter(factor: float) -> None:
    boxes = find_boxes(portraits.resize(portraits.load_astronaut(), factor))
    assert len(boxes) == 1
    box = tuple(length / factor for length in boxes[0])
    assert portraits.compute_overlap(box, FACE) > 0.6  # type: ignore[arg-type]


@pytest.mark.parametrize("degrees", [-30, -15, 15, 30])
def test_a_rotated_face_is_found_with_its_rotation(degrees: float) -> None:
    faces = find_faces(portraits.rotate(portraits.load_astronaut(), degrees), DetectorOptions())
    assert len(faces) == 1
    (left_x, left_y), (right_x, right_y) = faces.landmarks[0, :2].tolist()
    assert np.degrees(np.arctan2(right_y - left_y, right_x - left_x)) == pytest.approx(
        degrees + 2.6, abs=5
    )


def test_a_mirrored_picture_has_the_mirrored_face() -> None:
    mirrored = np.ascontiguousarray(portraits.load_astronaut()[:, ::-1])
    [box] = find_boxes(mirrored)
    assert portraits.compute_overlap((512 - box[0] - box[2], *box[1:]), FACE) > 0.6


def test_a_face_of_20_pixels_is_found_in_a_large_picture() -> None:
    small = portraits.resize(portraits.load_astronaut(), 20 / FACE[3])
    scene = portraits.paste(small, 1600, 1200, left=1210, top=805)
    expected = (
        1210 + FACE[0] * 20 / FACE[3],
        805 + FACE[1] * 20 / FACE[3],
        20.0,
        20.0,
    )
    boxes = find_boxes(scene, DetectorOptions(min_size=20))
    assert [portraits.compute_overlap(box, expected) > MATCH for box in boxes] == [True]
    assert find_boxes(scene, DetectorOptions(min_size=20, use_tiles=False)) == []


def test_small_faces_and_further_faces_are_left_out_on_request() -> None:
    astronaut = portraits.load_astronaut()
    pair = np.hstack([astronaut, portraits.paste(portraits.resize(astronaut, 0.5), 512, 512, 9, 9)])
    assert len(find_boxes(pair)) == 2
    assert len(find_boxes(pair, DetectorOptions(min_size=90))) == 1
    assert len(find_boxes(pair, DetectorOptions(max_faces=1))) == 1


# `back` takes the waves for faces.
@pytest.mark.parametrize("name", sorted({*DETECTOR_NAMES} - {"back"}))
def test_a_picture_without_a_face_has_none(name: str) -> None:
    assert find_boxes(portraits.make_faceless(), DetectorOptions(name)) == []
    assert find_boxes(np.zeros((30, 700, 3), np.uint8), DetectorOptions(name)) == []


def test_grey_pictures_are_searched() -> None:
    grey = cv2.cvtColor(portraits.load_astronaut(), cv2.COLOR_RGB2GRAY)
    [box] = find_boxes(grey)  # type: ignore[arg-type]
    assert portraits.compute_overlap(box, FACE) > 0.6


def change_picture(picture: Picture, change: str) -> tuple[Picture, float]:
    """Return a changed picture, and the factor by which it has become larger."""
    if change in ("half", "double"):
        factor = {"half": 0.5, "double": 2.0}[change]
        return portraits.resize(picture, factor), factor
    if change == "mirror":
        return np.ascontiguousarray(picture[:, ::-1]), 1
    if change == "quality 40":
        content = portraits.encode(picture, "JPEG", quality=40)
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        return decoded, 1  # type: ignore[return-value]
    return picture, 1


@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs are not part of the repository")
@pytest.mark.parametrize("change", ["none", "half", "double", "quality 40", "mirror"])
def test_all_18_faces_of_4_photographs_are_found_without_a_false_alarm(change: str) -> None:
    with (PHOTOS / "faces.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = {}
    for name in [*sorted({row["file"] for row in rows}), "no_face_dogs.jpg"]:
        original = cv2.cvtColor(cv2.imread(str(PHOTOS / name)), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]
        picture, factor = change_picture(original, change)  # type: ignore[arg-type]
        expected = np.array(
            [
                [float(row[key]) for key in ("left", "top", "width", "height")]
                for row in rows
                if row["file"] == name
            ],
            np.float32,
        ).reshape(-1, 4)
        if change == "mirror":
            expected[:, 0] = original.shape[1] - expected[:, 0] - expected[:, 2]
        boxes = find_faces(picture, DetectorOptions()).boxes
        hits = compute_overlaps(expected * factor, boxes) > MATCH
        counts[name] = (int(hits.any(axis=1).sum()), len(boxes))
    assert counts == {
        "2007_007763.jpg": (7, 7),
        "2008_001009.jpg": (2, 2),
        "2008_001322.jpg": (3, 3),
        "2008_002079.jpg": (6, 6),
        "no_face_dogs.jpg": (0, 0),
    }


def test_boxes_that_overlap_are_one_face() -> None:
    faces = make_faces(
        (0, 0, 10, 10, 0.6), (1, 0, 10, 10, 0.9), (50, 50, 8, 8, 0.7), (50, 50, 8, 8, 0.7)
    )
    merged = merge_faces(faces)
    expected = np.array([[0.6, 0, 10, 10], [50, 50, 8, 8]])
    np.testing.assert_allclose(merged.boxes, expected, rtol=1e-5)
    np.testing.assert_allclose(merged.confidences, [0.9, 0.7], rtol=1e-6)
    assert len(merge_faces(make_no_faces())) == 0


def test_overlaps_are_intersection_over_union() -> None:
    first = np.array([[0, 0, 10, 10], [5, 5, 0, 0]], np.float32)
    second = np.array([[5, 0, 10, 10], [0, 0, 10, 10], [20, 20, 5, 5]], np.float32)
    expected = np.array([[1 / 3, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(compute_overlaps(first, second), expected, rtol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (501, 90), (4000, 3000), (1300, 5)])
def test_the_tiles_cover_the_image_and_overlap(width: int, height: int) -> None:
    side = 500
    covered = np.zeros((height, width), int)
    tiles = list(iterate_tiles(np.zeros((height, width), np.uint8), side))
    assert tiles[0].image.shape == (height, width)
    for tile in tiles[1:]:
        assert max(tile.image.shape) <= side
        rows, columns = tile.image.shape
        covered[tile.top : tile.top + rows, tile.left : tile.left + columns] += 1
    assert covered.min() >= (1 if max(width, height) > side else 0)
    starts = sorted({tile.left for tile in tiles[1:]})
    # A face of a third of a tile is whole in one of them.
    assert all(right - left <= side * 2 / 3 + 1 for left, right in itertools.pairwise(starts))


def test_the_anchors_are_those_of_mediapipe() -> None:
    # Numbers of anchors, first and last ones, as MediaPipe's SsdAnchorsCalculator returns them.
    for name, count in {"full_range_sparse": 2304, "back": 896, "short_range": 896}.items():
        network = NETWORKS[name]
        anchors = make_anchors(network.size, network.grids) / network.size
        assert len(anchors) == count
        assert anchors.min() > 0
        assert anchors.max() < 1
    short_range = make_anchors(128, NETWORKS["short_range"].grids) / 128
    np.testing.assert_allclose(short_range[:3], [[1 / 32] * 2, [1 / 32] * 2, [3 / 32, 1 / 32]])
    np.testing.assert_allclose(short_range[-1], [15 / 16, 15 / 16])


def test_a_detector_is_described_by_the_files_of_its_networks() -> None:
    descriptions = [describe_detector(DetectorOptions(name)) for name in DETECTOR_NAMES]
    assert [description["name"] for description in descriptions] == list(DETECTOR_NAMES)
    assert len({description["sha256"] for description in descriptions}) == len(DETECTOR_NAMES)
