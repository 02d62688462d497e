"""A model for the tests of `score`, and checks of the scores that the job writes.

The expected probabilities are computed apart from the job: images are decoded, resized and given to
Keras here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.schema import CLIP, FACE
from fer_pipeline.learning.inference import serving_model
from tests.helpers import finished_run
from tests.helpers.fer_csv import Image

CLASSES = ("angry", "happy", "sad")
SIZE = 12
COLUMNS = [
    "source",
    "record",
    "image_hash",
    "variant",
    "replica",
    *CLIP,
    *FACE,
    "emotion",
    "confidence",
    *(f"p_{name}" for name in CLASSES),
    "reason",
    "detail",
]
TOLERANCE = 1e-6
"""Tolerance of probabilities: batches of other sizes than Keras's give sums in another order."""

Row = dict[str, Any]


@dataclass(frozen=True)
class ScoringModel:
    """A finished run.

    Attributes:
        folder: Folder of the run.
        model: Network from raw pixels to probabilities.
        enhancement: Enhancement of the images that the model was trained on.
    """

    folder: Path
    model: keras.Model
    enhancement: Enhancement

    def predict(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """Return the probabilities of grey images of any size, (n, classes)."""
        enhanced = [enhance(image, self.enhancement) for image in images]
        pixels = np.stack([resize(image, SIZE) for image in enhanced])
        return self.model.predict(pixels[..., None].astype(np.float32), verbose=0)


def make_model(folder: Path, seed: int = 0, enhancement: Enhancement | None = None) -> ScoringModel:
    """Write a run with a small network of large random weights, which shows small pixel errors."""
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(CLASSES), kernel_initializer=keras.initializers.RandomNormal()),
        ]
    )
    enhancement = enhancement or Enhancement()
    model = serving_model.build_serving_model(network, SIZE, Normalization.centered())
    finished_run.save(folder, model, CLASSES, enhancement=enhancement, best_accuracy=0.5)
    return ScoringModel(folder, model, enhancement)


@dataclass(frozen=True)
class Scores:
    """Content of the files that `scores.json` names, read with pyarrow only.

    Attributes:
        folder: Folder of the scores.
        manifest: Content of `scores.json`.
        rows: Rows by source and record.
    """

    folder: Path
    manifest: dict[str, Any]
    rows: list[Row]

    @classmethod
    def read(cls, folder: Path) -> Scores:
        """Read the scores in a folder."""
        manifest = json.loads((folder / "scores.json").read_text())
        rows: list[Row] = []
        for file in manifest["files"]:
            assert (folder / file["path"]).stat().st_size == file["bytes"]
            part = pq.ParquetFile(folder / file["path"]).read()
            assert (part.schema.names, len(part)) == (COLUMNS, file["rows"])
            rows += part.to_pylist()
        return cls(folder, manifest, sorted(rows, key=lambda row: (row["source"], row["record"])))


class ScoreInputs(Protocol):
    """Type of the fixture `score_inputs`."""

    def __call__(
        self,
        model: ScoringModel | Path,
        *inputs: Path | str,
        to: Path | None = None,
        overwrite: bool = False,
        settings: tuple[str, ...] = (),
        annotate: Path | None = None,
    ) -> Scores:
        """Score inputs and read the scores back."""


@dataclass(frozen=True)
class ImageFolder:
    """Image files and broken files.

    Attributes:
        root: The folder.
        valid: Grey image that OpenCV decodes from each valid file, by relative path.
        broken: Reason and detail of a missing score, by relative path.
    """

    root: Path
    valid: dict[str, Image]
    broken: dict[str, tuple[str, str]]


def format_pixels(image: Image) -> str:
    """Return the pixels of an image as in a CSV."""
    return " ".join(map(str, image.ravel().tolist()))


def expect_scored(rows: Sequence[Row], model: ScoringModel, images: Sequence[Image]) -> None:
    """Assert that the rows hold the model's predictions for these images."""
    probabilities = model.predict(images)
    stored = np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows], np.float32)
    assert stored == pytest.approx(probabilities, abs=TOLERANCE)
    assert [row["confidence"] for row in rows] == stored.max(axis=1).tolist()
    assert [row["emotion"] for row in rows] == [CLASSES[best] for best in stored.argmax(axis=1)]
    assert {(row["reason"], row["detail"]) for row in rows} == {(None, None)}
    # Equal predictions for all images would hide a mistake.
    assert len({row["emotion"] for row in rows}) > 1
    assert np.ptp(stored, axis=0).min() > 0.03


def expect_unscored(row: Mapping[str, Any], reason: str, detail: str) -> None:
    """Assert that a row holds the reason of a missing score and no score."""
    assert (row["reason"], row["detail"]) == (reason, detail)
    assert row["image_hash"] is None
    assert {row["emotion"], row["confidence"], *(row[f"p_{name}"] for name in CLASSES)} == {None}


def expect_consistent_counts(scores: Scores) -> None:
    """Assert that the counts in `scores.json` are those of the rows."""
    manifest, rows = scores.manifest, scores.rows
    counts = Counter(row["emotion"] for row in rows if row["reason"] is None)
    assert (
        manifest["images"] == len(rows) == manifest["scored"] + sum(manifest["unscored"].values())
    )
    assert manifest["scored"] == sum(manifest["emotions"].values())
    assert manifest["emotions"] == {name: counts[name] for name in CLASSES}
    assert manifest["unscored"] == Counter(row["reason"] for row in rows if row["reason"])


def list_score_files(scores: Scores) -> set[str]:
    """Return the files of complete scores, relative to their folder."""
    return {"scores.json", "config.yaml", *(file["path"] for file in scores.manifest["files"])}


def round_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with their numbers rounded to five decimals."""
    return [
        {name: round(cell, 5) if isinstance(cell, float) else cell for name, cell in row.items()}
        for row in rows
    ]
