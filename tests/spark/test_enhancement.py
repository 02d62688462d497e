"""Images that are enhanced before they are scaled."""

from __future__ import annotations

import numpy as np
import pytest

from fer_pipeline.data import synthetic
from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from tests.helpers.fer_csv import format_row, write_csv
from tests.helpers.preprocessed import build_expected_row

ALL_STEPS = Enhancement(denoise=4, equalize=True, local_contrast=True)
COUNT = 12


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [synthetic.draw_face(n % 7, random, 48) for n in range(COUNT)]


@pytest.fixture
def source(faces, tmp_path):
    return write_csv(tmp_path / "a.csv", [format_row(n % 7, face) for n, face in enumerate(faces)])


@pytest.mark.parametrize("size", [28, 48, 60])
def test_the_original_is_enhanced_then_scaled(prepare, source, faces, size) -> None:
    dataset = prepare(source, image={"size": size, "enhancement": ALL_STEPS.model_dump()})

    assert dataset.rows == [
        # Its hash stays that of the original.
        build_expected_row(source, n, n % 7, resize(enhance(face, ALL_STEPS), size), original=face)
        for n, face in enumerate(faces)
    ]
    assert dataset.manifest.image.enhancement == ALL_STEPS


def test_variants_and_standard_normalisation_use_enhanced_images(prepare, source, faces) -> None:
    enhancement = Enhancement(local_contrast=True)

    dataset = prepare(
        source,
        image={"size": 48, "normalization": "standard", "enhancement": enhancement.model_dump()},
        variants={"flip": True},
    )

    pixels = np.stack([enhance(face, enhancement) for face in faces]).astype(float)
    normalization = dataset.manifest.image.normalization
    assert normalization.scale == pytest.approx(1 / pixels.std(), rel=1e-6)
    assert normalization.offset == pytest.approx(-pixels.mean() / pixels.std(), rel=1e-6)
    flipped = [row["image"] for row in dataset.rows if row["variant"] == "flip"]
    assert flipped == [enhance(face, enhancement)[:, ::-1].tobytes() for face in faces]


def test_duplicates_are_found_before_the_enhancement(prepare, faces, tmp_path) -> None:
    """Two uniform images of different brightness become equal, but are no duplicates."""
    flat = [np.full((48, 48), grey, np.uint8) for grey in (3, 200, 3)]
    file = write_csv(
        tmp_path / "a.csv",
        [format_row(n % 2, image) for n, image in enumerate([*faces[:4], *flat])],
    )

    dataset = prepare(file, image={"size": 48, "enhancement": {"local_contrast": True}})

    assert [row["record"] for row in dataset.rows] == [0, 1, 2, 3, 4, 5]
    assert {row["image"] for row in dataset.rows[4:]} == {bytes([128]) * 48 * 48}
