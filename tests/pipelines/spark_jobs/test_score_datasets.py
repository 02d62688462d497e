"""Scores of prepared datasets, and of models that enhance their images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.split_keys import hash_image
from fer_pipeline.errors import DatasetError, InputError
from tests.helpers.fer_csv import Image
from tests.helpers.preprocessed import Prepare, PreprocessedDataset
from tests.helpers.scoring import (
    SIZE,
    ScoreInputs,
    Scores,
    ScoringModel,
    expect_consistent_counts,
    expect_scored,
    make_model,
    round_rows,
)


@pytest.fixture(scope="module")
def dataset(prepare: Prepare, faces: tuple[Path, list[Image]]) -> PreprocessedDataset:
    """The faces without enhancement."""
    return prepare(faces[0], image={"size": SIZE})


@pytest.fixture(scope="module")
def dataset_scores(
    score_inputs: ScoreInputs, scoring_model: ScoringModel, dataset: PreprocessedDataset
) -> Scores:
    return score_inputs(scoring_model, dataset.folder)


@pytest.fixture
def copy_dataset(dataset: PreprocessedDataset, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the dataset to a folder of this name and returns the copy."""

    def copy(name: str = "data") -> Path:
        return shutil.copytree(dataset.folder, tmp_path / name / "data")

    return copy


class TestDataset:
    def test_each_row_of_the_dataset_is_one_row(self, scoring_model, faces, dataset_scores) -> None:
        expect_consistent_counts(dataset_scores)
        assert [(row["source"], row["record"]) for row in dataset_scores.rows] == [
            (str(faces[0]), n) for n in range(30)
        ]
        assert [row["image_hash"] for row in dataset_scores.rows] == [
            hash_image(face).hex() for face in faces[1]
        ]
        expect_scored(dataset_scores.rows, scoring_model, faces[1])

    @pytest.mark.parametrize("kind", ["centered", "standard"])
    def test_a_dataset_of_floats_gets_the_same_scores(
        self, prepare, score_inputs, scoring_model, faces, dataset_scores, kind
    ) -> None:
        """The model has its own normalisation, so that of the dataset has no effect."""
        image = {"size": SIZE, "dtype": "float32", "normalization": kind}

        scores = score_inputs(scoring_model, prepare(faces[0], image=image).folder)

        expect_consistent_counts(scores)
        assert round_rows(scores.rows) == round_rows(dataset_scores.rows)

    @pytest.mark.parametrize(("size", "dtype"), [(8, "uint8"), (20, "float32")])
    def test_images_of_another_size_are_resized(
        self, prepare, score_inputs, scoring_model, faces, size, dtype
    ) -> None:
        other_dataset = prepare(faces[0], image={"size": size, "dtype": dtype})

        scores = score_inputs(scoring_model, other_dataset.folder)

        expect_scored(scores.rows, scoring_model, [resize(image, size) for image in faces[1]])

    def test_each_variant_and_replica_is_one_row(
        self, prepare, score_inputs, scoring_model, faces
    ) -> None:
        augmented_dataset = prepare(
            faces[0],
            image={"size": SIZE},
            variants={"flip": True, "rotations": [10]},
            sampling={"oversample": {"disgust": 2}},
        )

        scores = score_inputs(scoring_model, augmented_dataset.folder)

        def get_position(row: Mapping[str, Any]) -> tuple[Any, ...]:
            return row["source"], row["record"], row["variant"], row["replica"]

        expect_consistent_counts(scores)
        assert (
            scores.manifest["images"]
            == augmented_dataset.manifest.rows.written
            == len(augmented_dataset.rows)
            > 60
        )
        rows = sorted(scores.rows, key=get_position)
        assert list(map(get_position, rows)) == list(map(get_position, augmented_dataset.rows))
        stored_images = [
            np.frombuffer(row["image"], np.uint8).reshape(SIZE, SIZE)
            for row in augmented_dataset.rows
        ]
        expect_scored(rows, scoring_model, stored_images)

    def test_files_that_the_manifest_does_not_name_are_not_read(
        self, dataset, copy_dataset, score_inputs, scoring_model
    ) -> None:
        folder = copy_dataset()
        stray = folder / "split=train" / "part-00000-stray.parquet"
        shutil.copy(folder / dataset.manifest.files[0].path, stray)
        (folder / "face.png").write_bytes(b"")

        assert len(score_inputs(scoring_model, folder).rows) == 30

    @pytest.mark.parametrize("name", ["100%25 ä", "copy=3", "new [1]", "a {b,c}", "all *"])
    def test_the_folder_may_have_any_name(
        self, copy_dataset, score_inputs, scoring_model, dataset_scores, name
    ) -> None:
        scores = score_inputs(scoring_model, copy_dataset(name))

        assert round_rows(scores.rows) == round_rows(dataset_scores.rows)

    def test_a_folder_without_a_manifest_is_no_dataset(
        self, copy_dataset, score_inputs, scoring_model, tmp_path
    ) -> None:
        folder = copy_dataset()
        (folder / "manifest.json").unlink()

        with pytest.raises((InputError, DatasetError)) as error:
            score_inputs(scoring_model, folder, to=tmp_path / "out")

        assert str(error.value).startswith(f"{folder}: ")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("damage", ["missing", "cut short", "other rows"])
    def test_the_error_of_a_damaged_dataset_names_the_file(
        self, dataset, copy_dataset, score_inputs, scoring_model, tmp_path, damage
    ) -> None:
        folder = copy_dataset()
        file = folder / dataset.manifest.files[0].path
        match damage:
            case "missing":
                file.unlink()
            case "cut short":
                file.write_bytes(file.read_bytes()[:-100])
            case "other rows":
                pq.write_table(pq.ParquetFile(file).read().slice(1), file)

        with pytest.raises((InputError, DatasetError)) as error:
            score_inputs(scoring_model, folder, to=tmp_path / "out")

        assert str(file) in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out" / "scores.json").exists()


ENHANCEMENT = Enhancement(denoise=5, equalize=True, local_contrast=True)


@pytest.fixture(scope="module")
def enhancing_model(tmp_path_factory: pytest.TempPathFactory) -> ScoringModel:
    return make_model(tmp_path_factory.mktemp("enhancing"), enhancement=ENHANCEMENT)


class TestEnhancement:
    def test_images_and_csv_are_enhanced_as_for_training(
        self, enhancing_model, crops, faces, score_inputs
    ) -> None:
        folder_scores = score_inputs(enhancing_model, str(crops.root).replace("[crops]", "?crops?"))
        rows = {row["source"]: row for row in folder_scores.rows}
        names = [str(crops.root / name) for name in crops.valid]
        expect_scored([rows[name] for name in names], enhancing_model, list(crops.valid.values()))
        csv_scores = score_inputs(enhancing_model, faces[0])
        expect_scored(csv_scores.rows, enhancing_model, faces[1])
        # The hashes are those of the images before their enhancement.
        assert [row["image_hash"] for row in csv_scores.rows] == [
            hash_image(face).hex() for face in faces[1]
        ]

    def test_an_enhanced_dataset_is_not_enhanced_again(
        self, enhancing_model, prepare, faces, score_inputs
    ) -> None:
        enhanced_dataset = prepare(
            faces[0], image={"size": SIZE, "enhancement": ENHANCEMENT.model_dump()}
        )
        expect_scored(
            score_inputs(enhancing_model, enhanced_dataset.folder).rows, enhancing_model, faces[1]
        )

    def test_a_dataset_with_another_enhancement_is_refused(
        self, enhancing_model, scoring_model, prepare, dataset, faces, score_inputs
    ) -> None:
        equalized_dataset = prepare(
            faces[0], image={"size": SIZE, "enhancement": {"equalize": True}}
        )
        for model, folder, dataset_enhancement, model_enhancement in (
            (enhancing_model, dataset.folder, "nothing", ENHANCEMENT),
            (enhancing_model, equalized_dataset.folder, "equalize", ENHANCEMENT),
            (scoring_model, equalized_dataset.folder, "equalize", "nothing"),
        ):
            with pytest.raises(DatasetError) as error:
                score_inputs(model, folder)
            message = str(error.value)
            assert message.startswith(
                f"{folder}: the enhancement of its images is {dataset_enhancement}, "
            )
            assert f" with {model_enhancement}; prepare the dataset with the model's" in message
