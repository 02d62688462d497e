"""Images that are enhanced before they are scaled."""

from __future__ import annotations

import numpy as np
import pytest

from fer_pipeline.data import synthetic
from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from tests.helpers.fer_csv import format_row, write_csv
from tests.helpers.preprocessed import build_expected_row

EVERYTHING = Enhancement(denoise=4, equalize=True, local_contrast=True)
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
    made = prepare(source, image={"size": size, "enhancement": EVERYTHING.model_dump()})

    assert made.rows == [
        # Its hash stays that of the original.
        build_expected_row(source, n, n % 7, resize(enhance(face, EVERYTHING), size), original=face)
        for n, face in enumerate(faces)
    ]
    assert made.manifest.image.enhancement == EVERYTHING


def test_variants_and_standard_normalisation_are_of_what_is_stored(prepare, source, faces) -> None:
    how = Enhancement(local_contrast=True)

    made = prepare(
        source,
        image={"size": 48, "normalization": "standard", "enhancement": how.model_dump()},
        variants={"flip": True},
    )

    pixels = np.stack([enhance(face, how) for face in faces]).astype(float)
    normalization = made.manifest.image.normalization
    assert normalization.scale == pytest.approx(1 / pixels.std(), rel=1e-6)
    assert normalization.offset == pytest.approx(-pixels.mean() / pixels.std(), rel=1e-6)
    flipped = [row["image"] for row in made.rows if row["variant"] == "flip"]
    assert flipped == [enhance(face, how)[:, ::-1].tobytes() for face in faces]


def test_copies_are_those_of_the_originals(prepare, faces, tmp_path) -> None:
    """Two images of one grey each look alike when equalised, and are none the less two."""
    flat = [np.full((48, 48), grey, np.uint8) for grey in (3, 200, 3)]
    file = write_csv(
        tmp_path / "a.csv",
        [format_row(n % 2, image) for n, image in enumerate([*faces[:4], *flat])],
    )

    made = prepare(file, image={"size": 48, "enhancement": {"local_contrast": True}})

    assert [row["record"] for row in made.rows] == [0, 1, 2, 3, 4, 5]
    assert {row["image"] for row in made.rows[4:]} == {bytes([128]) * 48 * 48}
