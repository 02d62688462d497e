import csv
import dataclasses
import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.manifest import ImageInfo
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.io.output_kinds import DEFAULT_MODEL, RunFile
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.metrics import classification, tables
from fer_pipeline.pipelines.evaluate import OUTPUT_FILES, Evaluation, format_report
from fer_pipeline.pipelines.export import export
from fer_pipeline.plots import feature_maps
from tests.helpers import finished_run
from tests.helpers.evaluation import evaluate

CLASSES = ("angry", "happy", "sad")
SIZE = 16
CHECKSUM = "fedcba9876543210"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "evaluate.py"

# The model takes a face for the class whose brightness is nearest: that of the middle of its third.
LEVELS = NORMALIZATION.lookup_table()[[42, 128, 213]].astype(np.float64)
SHARPNESS = 3.0


@pytest.fixture(scope="module")
def splits(rows: Any) -> dict[str, Any]:
    """The rows of each split: mostly as bright as their class, sometimes as another one."""
    random = np.random.default_rng(5)

    def made(count: int) -> Any:
        labels, others = random.integers(3, size=(2, count)).astype(np.int32)
        shown = np.where(random.random(count) < 0.7, labels, others)
        faces = 85 * shown[:, None, None] + random.integers(0, 85, (count, SIZE, SIZE))
        return dataclasses.replace(rows, pixels=faces.astype(np.uint8), labels=labels)

    return {"train": made(20), "test": made(110)}


@pytest.fixture(scope="module")
def make_dataset(splits: dict[str, Any], write_dataset: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a dataset of these rows, and changes what its manifest says."""

    def make(folder: Path, dtype: str = "uint8", **changes: object) -> Path:
        write_dataset(folder, splits, dtype=dtype)
        StoredDataset.open(folder).manifest.model_copy(update=changes).write(folder)
        return folder

    return make


def make_run(
    folder: Path, *, bias: float = 0.0, convolution: bool = True, left: bool = False
) -> Path:
    """Writes a finished run of a model that goes by brightness, perhaps that of the left half."""
    # A convolution with the one weight 1 gives what it takes.
    same = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="same")
    network = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            *([keras.layers.Cropping2D(((0, 0), (0, SIZE // 2)))] if left else []),
            *([same] if convolution else []),
            keras.layers.GlobalAveragePooling2D(name="average"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    # The nearest level has the largest 2 * level * mean - level ** 2.
    kernel = SHARPNESS * 2 * LEVELS[None, :]
    network.layers[-1].set_weights([kernel, bias - SHARPNESS * LEVELS**2])
    model = serving_model.build_serving_model(network, SIZE, NORMALIZATION)
    finished_run.save(folder, model, CLASSES, dataset_checksum=CHECKSUM, network="brightness")
    return folder


def expected_probabilities(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    means = NORMALIZATION.lookup_table()[pixels].astype(np.float64).mean(axis=(1, 2))
    powers = np.exp(SHARPNESS * (2 * LEVELS * means[:, None] - LEVELS**2))
    return powers / powers.sum(axis=1, keepdims=True)


def chosen(batch_size: int = 6, flip: bool = False) -> Config:
    settings = [f"inference.batch_size={batch_size}", f"inference.flip_tta={str(flip).lower()}"]
    return load_config(None, settings)


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def small(
    splits: dict[str, Any],
    write_dataset: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The corners, 9x9, of the images of the test split."""
    test = splits["test"]
    corners = dataclasses.replace(test, pixels=np.ascontiguousarray(test.pixels[:, :9, :9]))
    return write_dataset(tmp_path_factory.mktemp("small"), {"test": corners}, size=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def evaluated(
    run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    """The test split of the dataset, evaluated into a folder that was not there."""
    out = tmp_path_factory.mktemp("evaluated") / "a" / "b"
    return evaluate(run, dataset, Split.TEST, out, chosen()), out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestOutputs:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_predictions_are_whole_rows_in_the_order_of_the_dataset(
        self, run, splits, make_dataset, tmp_path, dtype
    ):
        data = make_dataset(tmp_path / "data", dtype)
        evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        table = pq.read_table(tmp_path / "out" / "predictions.parquet")
        assert list(zip(table.schema.names, table.schema.types, strict=True)) == [
            ("source", pa.string()),
            ("record", pa.int64()),
            ("image_hash", pa.string()),
            ("variant", pa.string()),
            ("replica", pa.int32()),
            ("copy_in_training", pa.bool_()),
            ("label", pa.int32()),
            ("emotion", pa.string()),
            ("predicted", pa.string()),
            ("correct", pa.bool_()),
            ("confidence", pa.float32()),
            *((f"p_{name}", pa.float32()) for name in CLASSES),
        ]
        rows = splits["test"]
        given = expected_probabilities(rows.pixels)
        guesses = given.argmax(axis=1)
        assert 0.5 < (guesses == rows.labels).mean() < 1
        assert table.to_pylist() == [
            {
                **rows.origin(record),
                # Rows of the same number have the same hash, and training has 20.
                "copy_in_training": record < 20,
                "label": label,
                "emotion": CLASSES[label],
                "predicted": CLASSES[guesses[record]],
                "correct": bool(label == guesses[record]),
                "confidence": pytest.approx(given[record].max(), abs=1e-6),
                **{
                    f"p_{name}": pytest.approx(given[record, i], abs=1e-6)
                    for i, name in enumerate(CLASSES)
                },
            }
            for record, label in enumerate(rows.labels)
        ]

    def test_metrics_say_what_was_evaluated(self, run, splits, dataset, evaluated):
        evaluation, out = evaluated
        result, rows = evaluation.metrics, splits["test"]
        expected = classification.compute_metrics(
            rows.labels, expected_probabilities(rows.pixels), CLASSES
        )
        assert result.classes == expected.classes
        assert result.confusion == expected.confusion
        assert result.top2_accuracy == expected.top2_accuracy
        assert result.loss == pytest.approx(expected.loss, abs=1e-6)
        found = json.loads((out / "metrics.json").read_text())
        versions = found.pop("versions")
        assert found == {
            "format": "fer_pipeline evaluation",
            "model": {
                "path": str(run.resolve()),
                "sha256": trained_model.compute_sha256(run / RunFile.MODEL),
                "dataset_checksum": CHECKSUM,
                "size": SIZE,
            },
            "dataset": {"path": str(dataset.resolve()), "checksum": CHECKSUM, "size": SIZE},
            "split": "test",
            "flip_tta": False,
            "backend": {
                "name": "keras",
                "format": "model.keras",
                "reason": "as configured",
                "sha256": trained_model.compute_sha256(run / RunFile.MODEL),
            },
            **evaluation.to_dict(),
        }
        assert found["rows"] == 110
        assert {"fer_pipeline", "python", "keras"} <= set(versions)
        assert {"tensorflow", "tensorflow-cpu"} & set(versions)

    def test_the_folder_holds_the_outputs_and_nothing_else(self, evaluated):
        _, out = evaluated
        assert {path.name for path in out.iterdir()} == set(OUTPUT_FILES)
        assert load_config(out / "config.yaml") == chosen()

    def test_the_pictures_can_be_seen(self, evaluated):
        pictures = [name for name in OUTPUT_FILES if name.endswith(".png")]
        assert len(pictures) == 8
        for name in pictures:
            picture = cv2.imread(str(evaluated[1] / name))
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.astype(np.int32) @ [1, 256, 65536])) > 20

    def test_the_size_of_the_batches_changes_nothing(self, run, dataset, evaluated, tmp_path):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen(256))
        by_four, at_once = (
            pq.read_table(out / "predictions.parquet").to_pylist()
            for out in (evaluated[1], tmp_path)
        )
        assert at_once == [
            {key: pytest.approx(v) if type(v) is float else v for key, v in row.items()}
            for row in by_four
        ]

    def test_a_second_evaluation_gives_the_same_bytes(self, run, dataset, evaluated, tmp_path):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen())
        assert contents(tmp_path) == contents(evaluated[1])

    def test_the_result_for_the_terminal(self, splits, evaluated):
        result, out = evaluated
        lines = format_report(result, out).splitlines()
        rows = splits["test"]
        right = (expected_probabilities(rows.pixels).argmax(axis=1) == rows.labels).mean()
        found = result.metrics
        assert f"accuracy                 {100 * right:.1f} % of 110 images" in "\n".join(lines)
        assert "\n".join(lines) == "\n\n".join(
            [
                tables.format_class_table(found),
                tables.format_overall_metrics(found),
                tables.format_overlap_table(result.overlap),
                tables.format_coverage_table(found),
                tables.format_confusion_table(found),
                tables.format_confused_pairs(found),
                "\n".join(f"wrote {out / name}" for name in OUTPUT_FILES),
            ]
        )

    def test_the_worst_mistakes_can_be_found_again(self, splits, evaluated):
        rows = splits["test"]
        given = expected_probabilities(rows.pixels)
        guesses, confidence = given.argmax(axis=1), given.max(axis=1)
        (wrong,) = np.nonzero(guesses != rows.labels)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:25]
        with (evaluated[1] / "mistakes.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert 20 < len(found) == len(worst)
        assert found == [
            {
                "row": str(row),
                **{name: str(rows.origin(row)[name]) for name in ("source", "record", "variant")},
                "emotion": CLASSES[rows.labels[row]],
                "predicted": CLASSES[guesses[row]],
                "confidence": one["confidence"],
                "p_true": one["p_true"],
            }
            for row, one in zip(worst, found, strict=True)
        ]
        assert [float(one["confidence"]) for one in found] == pytest.approx(
            confidence[worst], abs=1e-5
        )
        assert [float(one["p_true"]) for one in found] == pytest.approx(
            given[worst, rows.labels[worst]], abs=1e-5
        )


class TestSizeAndFlip:
    def found(self, out: Path) -> npt.NDArray[np.float64]:
        """The probabilities that stand in the predictions."""
        table = pq.read_table(out / "predictions.parquet")
        return np.stack([table.column(f"p_{name}").to_numpy() for name in CLASSES], axis=1)

    def test_images_of_another_size_are_resized(self, run, small, splits, tmp_path):
        result = evaluate(run, small, Split.TEST, tmp_path, chosen())
        pixels = np.stack([resize(one, SIZE) for one in splits["test"].pixels[:, :9, :9]])
        assert self.found(tmp_path) == pytest.approx(expected_probabilities(pixels), abs=1e-5)
        told = json.loads((tmp_path / "metrics.json").read_text())
        assert (told["model"]["size"], told["dataset"]["size"]) == (SIZE, 9)
        assert result.metrics.image_count == 110

    def test_flips_are_averaged(self, dataset, splits, tmp_path):
        left = make_run(tmp_path / "run", left=True)
        plain, flipped = tmp_path / "plain", tmp_path / "flipped"
        evaluate(left, dataset, Split.TEST, plain, chosen())
        config = chosen(flip=True)
        result = evaluate(left, dataset, Split.TEST, flipped, config)
        pixels = splits["test"].pixels
        one, other = (expected_probabilities(half) for half in (pixels[:, :, :8], pixels[:, :, 8:]))
        assert self.found(plain) == pytest.approx(one, abs=1e-5)
        assert self.found(flipped) == pytest.approx((one + other) / 2, abs=1e-5)
        assert abs(one - other).max() > 0.01
        expected = classification.compute_metrics(splits["test"].labels, (one + other) / 2, CLASSES)
        assert result.metrics.loss == pytest.approx(expected.loss, abs=1e-5)
        told = [
            json.loads((out / "metrics.json").read_text())["flip_tta"] for out in (plain, flipped)
        ]
        assert told == [False, True]


class TestRuntime:
    def chosen(self, backend: str) -> Config:
        return load_config(None, [f"inference.backend={backend}", "inference.batch_size=6"])

    def test_is_keras_unless_litert_is_asked_for(self, dataset, tmp_path):
        run = make_run(tmp_path / "run")
        export(run, None, ["litert"], load_config(None))
        told, found = {}, {}
        for name in ("auto", "keras", "litert"):
            out = tmp_path / name
            evaluate(run, dataset, Split.TEST, out, self.chosen(name))
            told[name] = json.loads((out / "metrics.json").read_text())["backend"]
            table = pq.read_table(out / "predictions.parquet")
            found[name] = np.stack([table.column(f"p_{name}").to_numpy() for name in CLASSES])
        content = (run / "export" / "model.tflite").read_bytes()
        assert told["auto"] == told["keras"]
        assert told["keras"]["format"] == "model.keras"
        assert told["litert"] == {
            "name": "litert",
            "format": "litert",
            "reason": "as configured",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        np.testing.assert_array_equal(found["auto"], found["keras"])
        np.testing.assert_allclose(found["litert"], found["keras"], atol=1e-5)

    def test_layers_that_are_drawn_are_said_to_be_keras_s(self, dataset, tmp_path, monkeypatch):
        run = make_run(tmp_path / "run")
        export(run, None, ["litert"], load_config(None))
        said, draw = [], feature_maps.draw_feature_maps

        def told(*given: Any) -> None:
            said.append(given[3])
            draw(*given)

        monkeypatch.setattr(feature_maps, "draw_feature_maps", told)
        for name in ("keras", "litert"):
            evaluate(run, dataset, Split.TEST, tmp_path / name, self.chosen(name))
        about = f"on the test split of {dataset.name}"
        assert said == [
            f"model run {about}",
            f"model run as litert {about}; its layers as in Keras",
        ]

    def test_litert_needs_an_export(self, dataset, tmp_path):
        run = make_run(tmp_path / "run")
        with pytest.raises(RunError) as raised:
            evaluate(run, dataset, Split.TEST, tmp_path / "out", self.chosen("litert"))
        assert "has no export" in str(raised.value)
        assert not (tmp_path / "out").exists()


class TestCopies:
    def told(self, out: Path) -> Any:
        return json.loads((out / "metrics.json").read_text())["copies_in_training"]

    def column(self, out: Path) -> list[bool | None]:
        return pq.read_table(out / "predictions.parquet").column("copy_in_training").to_pylist()

    def test_are_counted_and_left_out(self, splits, evaluated):
        result, out = evaluated
        rows = splits["test"]
        given = expected_probabilities(rows.pixels)
        rest = classification.compute_metrics(rows.labels[20:], given[20:], CLASSES)
        assert self.told(out) == {
            "copies": 20,
            "deduplicated": False,
            "all": result.metrics.accuracies_to_dict(),
            "without_copies": {**rest.accuracies_to_dict(), "classes": rest.to_dict()["classes"]},
        }
        assert rest.image_count == 90
        assert rest.accuracy != result.metrics.accuracy

    def test_a_dataset_that_took_them_out_says_so(self, run, make_dataset, tmp_path):
        data = make_dataset(tmp_path / "data", config={"split": {"deduplicate": True}})
        result = evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert self.told(tmp_path / "out")["deduplicated"] is True
        assert result.overlap is not None
        assert result.overlap.deduplicated

    def test_there_are_none_to_speak_of_in_the_train_split(self, run, dataset, tmp_path):
        result = evaluate(run, dataset, Split.TRAIN, tmp_path, chosen())
        assert result.overlap is self.told(tmp_path) is None
        assert self.column(tmp_path) == [None] * 20
        assert "exact cop" not in format_report(result, tmp_path)

    def test_a_dataset_without_training_cannot_tell(self, run, splits, write_dataset, tmp_path):
        data = write_dataset(tmp_path / "data", {"test": splits["test"]})
        result = evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert result.overlap is self.told(tmp_path / "out") is None
        assert self.column(tmp_path / "out") == [None] * 110

    def test_a_train_split_that_is_missing(self, run, make_dataset, tmp_path):
        data = make_dataset(tmp_path / "data")
        (file,) = StoredDataset.open(data).manifest.files_in(Split.TRAIN)
        path = data / file.path
        with path.open("r+b") as opened:
            opened.seek(-12, os.SEEK_END)
            opened.write(b"\xff" * 4)
        with pytest.raises(DatasetError) as caught:
            evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert str(caught.value).startswith(f"{path}: cannot be read (")
        path.unlink()
        with pytest.raises(DatasetError, match=r"parquet: is missing, the manifest says"):
            evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert not (tmp_path / "out").exists()


class TestPictures:
    def drawn(self, run: Path, data: Path, out: Path, **options: Any) -> bytes:
        evaluate(run, data, Split.TEST, out, chosen(), **options)
        return (out / "feature_maps.png").read_bytes()

    def test_feature_maps_are_of_the_layers_and_the_image_that_are_asked_for(
        self, run, dataset, evaluated, tmp_path
    ):
        usual = (evaluated[1] / "feature_maps.png").read_bytes()
        same = self.drawn(run, dataset, tmp_path / "same", layers=["same"])
        third = self.drawn(run, dataset, tmp_path / "third", image=3)
        logits = self.drawn(run, dataset, tmp_path / "both", layers=["same", "logits"])
        assert same == usual
        assert len({usual, third, logits}) == 3

    def test_the_last_row_of_the_split_can_be_asked_for(self, run, dataset, tmp_path):
        assert self.drawn(run, dataset, tmp_path / "out", image=109)

    def test_a_layer_that_is_not_there(self, run, dataset, tmp_path):
        with pytest.raises(RunError) as caught:
            self.drawn(run, dataset, tmp_path / "out", layers=["sane"])
        message = str(caught.value)
        assert message.startswith("--layers: the network has no layer 'sane' ")
        assert "did you mean same?" in message
        assert "same, average, logits" in message
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("image", [-1, 110])
    def test_an_image_that_is_not_there(self, run, dataset, tmp_path, image):
        with pytest.raises(DatasetError) as caught:
            self.drawn(run, dataset, tmp_path / "out", image=image)
        assert str(caught.value) == (
            f"--image {image}: the test split of {dataset} has 110 rows; choose one of 0..109"
        )
        assert not (tmp_path / "out").exists()

    def test_a_network_without_convolutions_has_fewer_and_keeps_none_of_another(
        self, run, dataset, tmp_path
    ):
        flat = make_run(tmp_path / "flat", convolution=False)
        out = tmp_path / "out"
        evaluate(run, dataset, Split.TEST, out, chosen())
        result = evaluate(flat, dataset, Split.TEST, out, chosen(), overwrite=True)
        left = [
            name
            for name in OUTPUT_FILES
            if name not in ("feature_maps.png", "class_activation.png")
        ]
        assert {path.name for path in out.iterdir()} == set(left)
        assert format_report(result, out).splitlines()[-10:] == [
            f"wrote {out / name}" for name in left
        ]
        # Asked for, what its layers give is drawn.
        evaluate(flat, dataset, Split.TEST, out, chosen(), overwrite=True, layers=["average"])
        assert (out / "feature_maps.png").is_file()


class TestRefusals:
    def refused(self, kind: type[FerError], model: Path, data: Path, out: Path) -> str:
        before = contents(out) if out.is_dir() else None
        with pytest.raises(kind) as caught:
            evaluate(model, data, Split.TEST, out, chosen())
        assert (contents(out) if out.is_dir() else None) == before
        return str(caught.value)

    @pytest.mark.parametrize("classes", [("angry", "happy", "fear"), ("happy", "angry", "sad")])
    def test_other_classes_or_another_order(self, run, make_dataset, tmp_path, classes):
        data = make_dataset(tmp_path / "data", classes=list(classes))
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message.startswith(
            f"{data}: its classes are {', '.join(classes)}, the model of {run} was trained for"
            " angry, happy, sad; "
        )
        assert message.endswith("in the same order")

    def test_another_enhancement(self, run, make_dataset, tmp_path):
        enhanced = Enhancement(equalize=True)
        image = ImageInfo(
            size=SIZE, dtype="uint8", normalization=NORMALIZATION, enhancement=enhanced
        )
        data = make_dataset(tmp_path / "data", image=image)
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message.startswith(f"{data}: the enhancement of its images is {enhanced}, the model")

    def test_an_empty_split(self, run, dataset, tmp_path):
        with pytest.raises(DatasetError, match="the validation split is empty"):
            evaluate(run, dataset, Split.VALIDATION, tmp_path / "out", chosen())
        assert not (tmp_path / "out").exists()

    def test_no_dataset_and_no_run(self, run, dataset, tmp_path):
        nothing, out = tmp_path / "nothing", tmp_path / "out"
        assert "no such folder" in self.refused(DatasetError, run, nothing, out)
        assert "no such folder" in self.refused(RunError, nothing, dataset, out)

    def test_an_evaluation_that_is_there(self, run, dataset, evaluated):
        _, out = evaluated
        assert self.refused(StorageError, run, dataset, out) == (
            f"{out}: holds an evaluation already; --overwrite replaces it"
        )

    def test_a_folder_that_is_someone_elses(self, run, dataset, tmp_path):
        (tmp_path / "thesis.tex").write_text("three years of work")
        assert "it holds thesis.tex" in self.refused(StorageError, run, dataset, tmp_path)
        assert "not an evaluation" in self.refused(StorageError, run, dataset, run)

    def test_a_dataset_that_is_not_what_its_manifest_says(
        self, run, splits, make_dataset, tmp_path
    ):
        angry, happy, sad = np.bincount(splits["test"].labels).tolist()
        counts = {Split.TEST: {"angry": angry - 1, "happy": happy + 1, "sad": sad}}
        data = make_dataset(tmp_path / "data", counts=counts)
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message == (
            f"{data}: the test split holds {{'angry': {angry}, 'happy': {happy}, 'sad': {sad}}},"
            f" its manifest says {counts[Split.TEST]}; run preprocess again"
        )

    def test_a_model_that_gives_no_probabilities(self, dataset, tmp_path):
        model = make_run(tmp_path / "run", bias=math.nan)
        message = self.refused(RunError, model, dataset, tmp_path / "out")
        assert message == (
            f"{model}: its model cannot be evaluated:"
            " expected probabilities, got values that are not finite"
        )


class TestOverwrite:
    def test_replaces_all_of_it(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, chosen(2))
        before = contents(tmp_path)
        (tmp_path / ".metrics-a1b2c3_d.json").write_text("{")
        evaluate(run, dataset, Split.TEST, tmp_path, chosen(), overwrite=True)
        after = contents(tmp_path)
        assert set(after) == set(OUTPUT_FILES)
        assert all(after[name] != before[name] for name in OUTPUT_FILES)

    def test_that_fails_while_it_predicts_leaves_the_old_one_whole(
        self, dataset, evaluated, tmp_path
    ):
        _, out = evaluated
        before = contents(out)
        bad = make_run(tmp_path / "run", bias=math.nan)
        with pytest.raises(RunError):
            evaluate(bad, dataset, Split.TEST, out, chosen(), overwrite=True)
        assert contents(out) == before

    def test_that_fails_while_it_writes_leaves_no_mixture(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, chosen())
        (tmp_path / "classes.png").unlink()
        (tmp_path / "classes.png").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"classes\.png: cannot be written"):
            evaluate(run, dataset, Split.TEST, tmp_path, chosen(), overwrite=True)
        assert not (tmp_path / "metrics.json").exists()
        (tmp_path / "classes.png").rmdir()
        # What is torn is replaced without being asked.
        assert evaluate(run, dataset, Split.TEST, tmp_path, chosen()).metrics.image_count == 110


class TestWarnings:
    def warned(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        # TensorFlow has something to say of many models in one process, which no user has.
        ours = [record for record in caplog.records if record.name.startswith("fer_pipeline")]
        return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]

    def test_none_where_there_is_nothing_to_say(self, run, dataset, tmp_path, caplog):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen())
        assert self.warned(caplog) == []

    def test_of_the_train_split(self, run, dataset, tmp_path, caplog):
        assert evaluate(run, dataset, Split.TRAIN, tmp_path, chosen()).metrics.image_count == 20
        (message,) = self.warned(caplog)
        assert message.startswith("the model was trained on the train split")

    def test_of_another_dataset(self, run, make_dataset, tmp_path, caplog):
        data = make_dataset(tmp_path / "data", checksum="f" * 16)
        evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        (message,) = self.warned(caplog)
        assert message.startswith(
            "the model was trained on a dataset with checksum fedcba9876543210, but this dataset"
            " has checksum ffffffffffffffff: the model may have been trained on images of this"
            " split; "
        )
        assert "in this dataset's train split" in message

    def test_of_another_size(self, run, small, tmp_path, caplog):
        evaluate(run, small, Split.TEST, tmp_path / "out", chosen())
        assert self.warned(caplog) == [
            f"{small}: its images of 9x9 pixels are resized to 16x16 pixels for the model"
        ]


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestJob:
    def test_in_a_process_of_its_own(self, run, dataset, tmp_path):
        command = [JOB, "--model", run, "--dataset", dataset, "--split", "test"]
        command += ["--output", tmp_path / "out", "--set", "inference.batch_size=5"]
        command += ["--layers", "logits", "same", "--image", 7, "--flip-tta"]
        done = python(*command)
        assert done.returncode == 0, done.stderr
        # What the process prints is what the same evaluation gives here.
        options: dict[str, Any] = {"layers": ["logits", "same"], "image": 7}
        result = evaluate(
            run, dataset, Split.TEST, tmp_path / "here", chosen(5, flip=True), **options
        )
        assert done.stdout == format_report(result, tmp_path / "out") + "\n"
        assert contents(tmp_path / "out") == contents(tmp_path / "here")
        again = python(*command)
        assert again.returncode == 1
        assert again.stdout == ""
        assert again.stderr.splitlines()[-1] == (
            f"error: {tmp_path / 'out'}: holds an evaluation already; --overwrite replaces it"
        )

    def test_its_help_needs_no_tensorflow(self):
        code = (
            "import runpy, sys\n"
            "sys.argv = ['evaluate', '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(JOB)!r}, run_name='__main__')\n"
            "except SystemExit:\n"
            "    heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'pyspark', 'petastorm'}\n"
            "    print(sorted(heavy & set(sys.modules)))\n"
        )
        done = python("-c", code)
        assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
        assert "--split {train,validation,test}" in done.stdout
        assert f"name of a bundled model; default: {DEFAULT_MODEL}" in " ".join(done.stdout.split())
