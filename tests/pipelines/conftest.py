"""Fixtures of several test files that take seconds to set up."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyspark.sql import SparkSession

from fer_pipeline.config import load_config
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.pipelines.score import score
from fer_pipeline.pipelines.train import train
from fer_pipeline.spark.error_messages import translate_spark_errors
from tests.helpers.fer_csv import Image, format_row, make_image
from tests.helpers.images import decode_grey, encode_image
from tests.helpers.scoring import SIZE, ImageFolder, ScoreInputs, Scores, ScoringModel, make_model
from tests.helpers.training import make_config


@pytest.fixture(scope="session")
def trained_run(
    easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ModelInfo]:
    """A finished run and the description that `train` returned."""
    folder = tmp_path_factory.mktemp("trained") / "a" / "run"
    return folder, train(str(easy_dataset), str(folder), make_config())


@pytest.fixture(scope="session")
def scoring_model(tmp_path_factory: pytest.TempPathFactory) -> ScoringModel:
    return make_model(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def score_inputs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> ScoreInputs:
    """A function that scores inputs and reads the scores back; `settings` are configuration."""

    def run(
        model: ScoringModel | Path,
        *inputs: Path | str,
        to: Path | None = None,
        overwrite: bool = False,
        settings: tuple[str, ...] = (),
        annotate: Path | None = None,
    ) -> Scores:
        folder = to or tmp_path_factory.mktemp("scored") / "scores"
        source = model.folder if isinstance(model, ScoringModel) else model
        with translate_spark_errors():
            manifest = score(
                lambda: contextlib.nullcontext(spark),
                str(source),
                [str(path) for path in inputs],
                str(folder),
                load_config(None, settings),
                annotate=None if annotate is None else str(annotate),
                overwrite=overwrite,
            )
        scores = Scores.read(folder)
        assert scores.manifest == manifest.model_dump(mode="json")
        return scores

    return run


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    """Image files of all kinds, and broken files, in folders whose names are not used."""
    root = tmp_path_factory.mktemp("crops") / "földer with [crops]"
    noise = np.random.default_rng(5)
    colour = noise.integers(0, 256, (31, 19, 3), np.uint8)
    alpha = noise.integers(0, 256, (9, 14, 4), np.uint8)
    alpha[..., 3] = 255
    deep = noise.integers(0, 2**16, (20, 20), np.uint16)
    jpeg = encode_image(
        ".jpg", cv2.GaussianBlur(noise.integers(0, 256, (64, 64, 3), np.uint8), (9, 9), 3)
    )
    valid = {
        "grey.png": encode_image(".png", make_image(1, SIZE)),
        "GREY.PNG": encode_image(".png", make_image(2, 30)),
        "tiny.png": encode_image(".png", make_image(3, 8)),
        "wide.bmp": encode_image(".bmp", make_image(5, 50)[:10]),
        "tall.tiff": encode_image(".tiff", make_image(6, 50)[:, :8]),
        "colour.png": encode_image(".png", colour),
        "alpha.png": encode_image(".png", alpha),
        "16 bits.png": encode_image(".png", deep),
        "photo.jpg": jpeg,
        "grey photo.jpeg": encode_image(".jpeg", make_image(7, 24), cv2.IMWRITE_JPEG_QUALITY, 60),
        "a jpeg in truth.png": jpeg,
        "without a suffix": encode_image(".png", make_image(8, 16)),
        "train/angry/käse 100%.png": encode_image(".png", make_image(9, 16)),
        "train/bored/käse%20brot+#?.png": encode_image(".png", make_image(10, 16)),
        "x/y/z/[1] {2} * \\ 'q' \"d\".png": encode_image(".png", make_image(11, 16)),
        "x/日本語.webp": encode_image(".webp", make_image(12, 16), cv2.IMWRITE_WEBP_QUALITY, 101),
    }
    broken = {
        "empty.png": b"",
        "x/empty too.jpg": b"",
        "text.jpg": b"this is not an image\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": encode_image(".png", make_image(1, 60))[:2000],
        "Thumbs.db": b"\0" * 30,
        "notes.txt": b"buy milk",
    }
    small = {
        "a point.png": make_image(3, 1),
        "a line.png": make_image(4, 40)[:1],
        "a bit.png": make_image(4, 7),
    }
    encoded = {name: encode_image(".png", image) for name, image in small.items()}
    for name, content in {**valid, **broken, **encoded}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    decoded = {name: decode_grey(content) for name, content in valid.items()}
    unknown = "not in a known format, or with a damaged header"
    reasons = {
        "truncated.jpg": "the pixels of the JPEG image cannot be decoded",
        "truncated.png": "the pixels of the PNG image cannot be decoded",
    }
    details = {
        name: (
            "undecodable image",
            f"{len(content)} bytes, {reasons.get(name, unknown)}" if content else "no bytes",
        )
        for name, content in broken.items()
    }
    for name, image in small.items():
        height, width = image.shape
        details[name] = ("image too small", f"{width}x{height} pixels; the minimum is 8x8")
    return ImageFolder(root, decoded, details)


@pytest.fixture(scope="session")
def crop_scores(
    crops: ImageFolder, scoring_model: ScoringModel, score_inputs: ScoreInputs
) -> Scores:
    """Scores of the folder `crops`."""
    # The folder's brackets would be a pattern; the asterisk matches them.
    return score_inputs(scoring_model, str(crops.root).replace("[crops]", "*"))


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Image]]:
    """A CSV of 12x12 images, two thirds of them for training, and its images."""
    images = [make_image(300 + n, SIZE) for n in range(30)]
    usages = ("Training", "PublicTest", "Training", "PrivateTest", "Training", "Training")
    path = tmp_path_factory.mktemp("faces") / "faces.csv"
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for n, image in enumerate(images):
            file.write(format_row(n % 7, image, usages[n % 6]) + "\n")
    return path, images
