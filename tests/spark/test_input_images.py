"""Folders of images per class."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_pipeline.data.image_preparation import resize
from tests.helpers.fer_csv import make_image
from tests.helpers.images import decode_grey
from tests.helpers.preprocessed import build_expected_row


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Return the content of an image file."""
    return cv2.imencode(suffix, image)[1].tobytes()


def write_files(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a folder, by relative path."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (20, 12, 3), np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, prepare, colours):
    """A folder of folders per usage and class, its dataset, and the content of its valid files."""
    root = tmp_path_factory.mktemp("Größe 100% [neu]") / "Fotos & mehr"
    valid_files = {
        "train/angry/grey.png": encode(make_image(0)),
        "train/angry/grey.bmp": encode(make_image(1), ".bmp"),
        "train/Happiness/with a space #1.PGM": encode(make_image(2), ".pgm"),
        "train/6/käse%20brot.png": encode(make_image(3)),
        "train/sad/colour.png": encode(colours),
        "train/sad/photo.jpg": encode(colours, ".jpg"),
        "train/surprise/photo [1].png": encode(make_image(4, 20)),
        "train/surprise/without a suffix": encode(make_image(5)),
        "validation/fear/a.png": encode(make_image(6)),
        "Test/disgust/a.tiff": encode(make_image(7), ".tiff"),
        "PrivateTest/angry/a.png": encode(make_image(8)),
    }
    write_files(root, valid_files)
    bad_files = {
        "train/angry/empty.png": b"",
        "train/angry/half.png": valid_files["train/sad/colour.png"][:200],
        "train/happy/half.jpg": valid_files["train/sad/photo.jpg"][:300],
        "train/happy/notes.txt": b"no image",
        "train/happy/text.jpg": b"This is no image.\n",
        "train/happy/flat.png": encode(colours[:7]),
        "train/bored/a.png": valid_files["train/angry/grey.png"],
        "holdout/angry/a.png": valid_files["train/angry/grey.png"],
    }
    write_files(root, bad_files)
    write_files(root, {"train/angry/.hidden.png": b"", "train/angry/_SUCCESS": b""})
    # The glob replaces the brackets of the outer folder, which would be a pattern.
    path = str(root).replace("[neu]", "*")
    return root, prepare(path, input={"max_quarantined_fraction": 0.5}), valid_files


def test_every_image_is_a_row(folders, colours) -> None:
    root, dataset, valid_files = folders
    expected = [
        ("PrivateTest/angry/a.png", 0, make_image(8), "test"),
        ("Test/disgust/a.tiff", 1, make_image(7), "test"),
        ("train/6/käse%20brot.png", 6, make_image(3), "train"),
        ("train/Happiness/with a space #1.PGM", 3, make_image(2), "train"),
        ("train/angry/grey.bmp", 0, make_image(1), "train"),
        ("train/angry/grey.png", 0, make_image(0), "train"),
        ("train/sad/colour.png", 4, decode_grey(valid_files["train/sad/colour.png"]), "train"),
        ("train/sad/photo.jpg", 4, decode_grey(valid_files["train/sad/photo.jpg"]), "train"),
        ("train/surprise/photo [1].png", 5, make_image(4, 20), "train"),
        ("train/surprise/without a suffix", 5, make_image(5), "train"),
        ("validation/fear/a.png", 2, make_image(6), "validation"),
    ]

    assert dataset.rows == [
        build_expected_row(root / name, 0, label, resize(image, 8), split, original=image)
        for name, label, image, split in expected
    ]


def test_colours_become_luminance(folders, colours) -> None:
    root, dataset, _ = folders
    luminance = colours @ np.array([0.114, 0.587, 0.299])
    resized = cv2.resize(luminance, (8, 8), interpolation=cv2.INTER_AREA)

    row = dataset.rows_from(root / "train/sad/colour.png")[0]

    assert np.abs(np.frombuffer(row["image"], np.uint8).reshape(8, 8) - resized).max() < 2


def test_files_that_are_no_valid_images_are_quarantined(folders) -> None:
    root, dataset, _ = folders
    expected = [
        ("holdout/angry/a.png", "unknown usage", "usage 'holdout'"),
        ("train/angry/empty.png", "undecodable image", "no bytes"),
        (
            "train/angry/half.png",
            "undecodable image",
            "200 bytes, the pixels of the PNG image cannot be decoded",
        ),
        ("train/bored/a.png", "unknown emotion", "emotion 'bored'"),
        ("train/happy/flat.png", "image too small", "12x7 pixels; the minimum is 8x8"),
        (
            "train/happy/half.jpg",
            "undecodable image",
            "300 bytes, not in a known format, or with a damaged header",
        ),
        (
            "train/happy/notes.txt",
            "undecodable image",
            "8 bytes, not in a known format, or with a damaged header",
        ),
        (
            "train/happy/text.jpg",
            "undecodable image",
            "18 bytes, not in a known format, or with a damaged header",
        ),
    ]

    keys = ("source", "record", "reason", "detail")
    assert [tuple(row[key] for key in keys) for row in dataset.quarantine] == [
        (str(root / name), 0, reason, detail) for name, reason, detail in expected
    ]
    for row in dataset.quarantine:
        assert row["excerpt"].endswith(row["source"][-20:])


def test_each_folder_is_a_source(folders) -> None:
    root, dataset, _ = folders

    assert [(s.path, s.records, s.quarantined) for s in dataset.manifest.sources] == [
        (str(root / name), records, quarantined)
        for name, records, quarantined in (
            ("PrivateTest/angry", 1, 0),
            ("Test/disgust", 1, 0),
            ("holdout/angry", 1, 1),
            ("train/6", 1, 0),
            ("train/Happiness", 1, 0),
            ("train/angry", 4, 2),
            ("train/bored", 1, 1),
            ("train/happy", 4, 4),
            ("train/sad", 2, 0),
            ("train/surprise", 2, 0),
            ("validation/fear", 1, 0),
        )
    ]
    assert dataset.manifest.rows.read == 19


def test_class_folders_without_usages_are_split_by_emotion(prepare, tmp_path, caplog) -> None:
    names = {f"{('angry', 'happy')[n % 2]}/{n:02}.png": n for n in range(20)}
    write_files(tmp_path / "faces", {name: encode(make_image(n)) for name, n in names.items()})

    with caplog.at_level(logging.WARNING, logger="fer_pipeline.pipelines.run_preprocessing"):
        dataset = prepare(
            tmp_path / "faces", split={"method": "stratified", "validation": 0.3, "test": 0.1}
        )

    splits = [row["split"] for row in dataset.rows]
    assert dataset.rows == [
        build_expected_row(tmp_path / "faces" / name, 0, 3 * (n % 2), make_image(n), splits[row])
        for row, (name, n) in enumerate(sorted(names.items()))
    ]
    expected = ["test"] + ["train"] * 6 + ["validation"] * 3
    assert [sorted(splits[:10]), sorted(splits[10:])] == [expected, expected]
    assert not any("input.emotions" in record.getMessage() for record in caplog.records)


def test_one_image_can_be_read_by_its_path(prepare, tmp_path) -> None:
    write_files(
        tmp_path,
        {"train/sad/a.png": encode(make_image(0)), "train/fear/b.png": encode(make_image(1))},
    )

    dataset = prepare(tmp_path / "train/sad/a.png")

    assert dataset.rows == [build_expected_row(tmp_path / "train/sad/a.png", 0, 4, make_image(0))]
