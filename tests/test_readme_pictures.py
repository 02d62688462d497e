"""The pictures of README.md, drawn from tiny outputs of a demo."""

from pathlib import Path

import pandas as pd
import pytest

from fer_pipeline.data import synthetic
from scripts import draw_pictures
from scripts.draw_pictures import EMOTIONS
from tests.helpers.documents import ROOT
from tests.helpers.images import read_image


def write_demo(folder: Path) -> None:
    """Write the output of a demo that the pictures need, with a prediction for each emotion."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "dataset" / "quarantine").mkdir(parents=True)
    synthetic.write_csv(folder / "faces.csv", len(EMOTIONS))
    rows = [
        {
            "record": record,
            "emotion": emotion,
            "predicted": "sad",
            "correct": emotion == "sad",
            "confidence": 0.4,
            **{f"p_{name}": 0.4 if name == "sad" else 0.1 for name in EMOTIONS},
        }
        for record, emotion in enumerate(EMOTIONS)
    ]
    pd.DataFrame(rows).to_parquet(folder / "evaluation" / "predictions.parquet")
    quarantine = [{"record": 15, "reason": "not a number", "detail": "a pixel is a word"}]
    pd.DataFrame(quarantine).to_parquet(folder / "dataset" / "quarantine" / "part-0.parquet")


def test_all_pictures_are_written(tmp_path, monkeypatch):
    write_demo(tmp_path / "demo")
    monkeypatch.setattr(draw_pictures, "DEMO", tmp_path / "demo")
    assert draw_pictures.main([str(tmp_path / "pictures")]) == 0
    assert read_image(tmp_path / "pictures" / "annotated.jpg").shape == (300, 512, 3)
    height, width, _ = read_image(tmp_path / "pictures" / "predictions.png").shape
    assert width > height > 600
    assert "<svg" in (tmp_path / "pictures" / "data_flow.svg").read_text()


def test_images_of_fer2013_are_not_drawn(tmp_path, monkeypatch):
    write_demo(tmp_path)
    # `make demo FER2013=...` writes no CSV file of its own.
    (tmp_path / "faces.csv").unlink()
    monkeypatch.setattr(draw_pictures, "DEMO", tmp_path)
    with pytest.raises(SystemExit, match="no predictions of synthetic faces"):
        draw_pictures.draw_predictions(tmp_path / "predictions.png")
    assert not (tmp_path / "predictions.png").exists()


def test_the_data_flow_is_the_same_each_time(tmp_path):
    for name in ("first", "second"):
        draw_pictures.draw_data_flow(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_the_pictures_of_the_readme_are_small():
    for name in ("data_flow.svg", "predictions.png"):
        assert 0 < (ROOT / "docs" / "pictures" / name).stat().st_size < 200_000
