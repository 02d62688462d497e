"""Image files of all formats, damaged and unusual ones, preprocessed by Spark."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.image_files import draw, encode_all, save, save_pages


def write(path: Path, content: bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_every_format_is_kept(prepare, tmp_path) -> None:
    for name, content in encode_all().items():
        write(tmp_path / f"train/happy/{name}.png", content)
    prepared = prepare(tmp_path, split={"deduplicate": False, "method": "usage"})
    assert len(prepared.rows) == len(encode_all())
    assert prepared.quarantine == []


def test_unusable_images_have_a_reason(prepare, tmp_path) -> None:
    jpeg = encode_all()["jpeg grey"]
    folder = tmp_path / "train/sad"
    write(folder / "sound.jpg", jpeg)
    write(folder / "cut.jpg", jpeg[: len(jpeg) // 2])
    write(folder / "hole.jpg", jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    write(folder / "large.png", save(Image.new("1", (40_000, 25_000)), "PNG"))
    write(folder / "small.png", save(Image.new("L", (7, 20)), "PNG"))

    prepared = prepare(tmp_path, input={"max_quarantined_fraction": 0.9})

    assert {Path(row["source"]).name: row["reason"] for row in prepared.quarantine} == {
        "cut.jpg": "undecodable image",
        "hole.jpg": "damaged image",
        "large.png": "image too large",
        "small.png": "image too small",
    }
    assert prepared.manifest.rows.read == 5
    assert len(prepared.rows) == 1


def test_images_to_look_at_are_counted_and_logged(prepare, tmp_path, caplog) -> None:
    jpeg = encode_all()["jpeg grey"]
    folder = tmp_path / "train/sad"
    write(folder / "sound.jpg", jpeg)
    write(folder / "hole.jpg", jpeg[: len(jpeg) // 2] + b"\xff\xd9")
    write(folder / "animation.gif", save_pages(draw().grey.quantize(200), "GIF"))
    for grey in (0, 100):
        write(folder / f"{grey}.png", save(Image.new("L", (20, 20), grey), "PNG"))
    write(folder / "copy.png", save(Image.new("L", (20, 20), 100), "PNG"))

    with caplog.at_level(logging.WARNING):
        prepared = prepare(tmp_path, input={"keep_damaged": True})

    assert prepared.manifest.notes == {
        "all pixels equal": 2,
        "damaged image": 1,
        "first image of several in its file": 1,
    }
    assert "note on 2 images: all pixels equal" in caplog.messages
    assert len(prepared.rows) == 5


def test_files_of_16_bits_give_the_dataset_of_8_bits(prepare, tmp_path) -> None:
    for seed in range(6):
        values = np.random.default_rng(seed).integers(0, 256, (12, 12)).astype(np.uint16)
        values[0, 0] = 255
        path = Path("train") / ("happy", "sad")[seed % 2] / f"{seed}.png"
        write(tmp_path / "deep" / path, save(Image.fromarray(values << (seed % 3 * 4)), "PNG"))
        write(tmp_path / "plain" / path, save(Image.fromarray(values.astype(np.uint8)), "PNG"))
    deep, plain = (prepare(tmp_path / name) for name in ("deep", "plain"))
    assert deep.manifest.checksum == plain.manifest.checksum
