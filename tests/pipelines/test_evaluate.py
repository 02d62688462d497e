import csv
import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from fer_pipeline.pipelines.evaluate import OUTPUT_FILES, format_report
from fer_pipeline.pipelines.export import export
from fer_pipeline.pipelines.run_evaluation import Evaluation
from fer_pipeline.plots import feature_maps
from tests.helpers import finished_run
from tests.helpers.evaluation import evaluate
from tests.helpers.folders import read_files
from tests.helpers.images import read_image
from tests.helpers.processes import show_help
from tests.helpers.stored_datasets import Rowset, write_dataset

CLASSES = ("angry", "happy", "sad")
SIZE = 16
CHECKSUM = "fedcba9876543210"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "evaluate.py"

# The model predicts the class whose brightness is nearest: the middle of each third of the range.
LEVELS = NORMALIZATION.lookup_table()[[42, 128, 213]].astype(np.float64)
SHARPNESS = 3.0


@pytest.fixture(scope="module")
def splits(rows: Rowset) -> dict[str, Rowset]:
    """Rows of each split: most are as bright as their class, some as another one."""
    rng = np.random.default_rng(5)

    def make_rows(count: int) -> Rowset:
        labels, other_labels = rng.integers(3, size=(2, count)).astype(np.int32)
        levels = np.where(rng.random(count) < 0.7, labels, other_labels)
        faces = 85 * levels[:, None, None] + rng.integers(0, 85, (count, SIZE, SIZE))
        return dataclasses.replace(rows, pixels=faces.astype(np.uint8), labels=labels)

    return {"train": make_rows(20), "test": make_rows(110)}


@pytest.fixture(scope="module")
def make_dataset(splits: dict[str, Rowset]) -> Callable[..., Path]:
    """A function that writes a dataset of these rows and changes fields of its manifest."""

    def write(folder: Path, dtype: str = "uint8", **changes: object) -> Path:
        write_dataset(folder, splits, dtype=dtype)
        StoredDataset.open(folder).manifest.model_copy(update=changes).write(folder)
        return folder

    return write


def make_run(
    folder: Path, *, bias: float = 0.0, convolution: bool = True, left: bool = False
) -> Path:
    """Write a run whose model classifies by the brightness of the image or of its left half."""
    # A convolution of 1x1 with the weight 1 returns its input.
    identity = keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="same")
    network = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            *([keras.layers.Cropping2D(((0, 0), (0, SIZE // 2)))] if left else []),
            *([identity] if convolution else []),
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


def compute_expected_probabilities(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the probabilities of the model without TensorFlow, (n, classes)."""
    means = NORMALIZATION.lookup_table()[pixels].astype(np.float64).mean(axis=(1, 2))
    powers = np.exp(SHARPNESS * (2 * LEVELS * means[:, None] - LEVELS**2))
    return powers / powers.sum(axis=1, keepdims=True)


def make_config(batch_size: int = 6, flip: bool = False) -> Config:
    """Return a configuration of the inference."""
    settings = [f"inference.batch_size={batch_size}", f"inference.flip_tta={str(flip).lower()}"]
    return load_config(None, settings)


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def small_dataset(
    splits: dict[str, Rowset],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A dataset of the upper left 9x9 pixels of the test images."""
    test = splits["test"]
    corners = dataclasses.replace(test, pixels=np.ascontiguousarray(test.pixels[:, :9, :9]))
    return write_dataset(tmp_path_factory.mktemp("small"), {"test": corners}, size=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def evaluation_and_folder(
    run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, Path]:
    """An evaluation on the test split, and its folder, which was missing before."""
    out = tmp_path_factory.mktemp("evaluated") / "a" / "b"
    return evaluate(run, dataset, Split.TEST, out, make_config()), out


class TestOutputs:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_predictions_are_rows_in_the_order_of_the_dataset(
        self, run, splits, make_dataset, tmp_path, dtype
    ):
        dataset = make_dataset(tmp_path / "data", dtype)
        evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
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
        probabilities = compute_expected_probabilities(rows.pixels)
        predictions = probabilities.argmax(axis=1)
        assert 0.5 < (predictions == rows.labels).mean() < 1
        assert table.to_pylist() == [
            {
                **rows.origin(record),
                # Rows of equal number have equal hashes, and training has 20 rows.
                "copy_in_training": record < 20,
                "label": label,
                "emotion": CLASSES[label],
                "predicted": CLASSES[predictions[record]],
                "correct": bool(label == predictions[record]),
                "confidence": pytest.approx(probabilities[record].max(), abs=1e-6),
                **{
                    f"p_{name}": pytest.approx(probabilities[record, i], abs=1e-6)
                    for i, name in enumerate(CLASSES)
                },
            }
            for record, label in enumerate(rows.labels)
        ]

    def test_metrics_name_the_model_and_the_dataset(
        self, run, splits, dataset, evaluation_and_folder
    ):
        evaluation, out = evaluation_and_folder
        metrics, rows = evaluation.metrics, splits["test"]
        expected = classification.compute_metrics(
            rows.labels, compute_expected_probabilities(rows.pixels), CLASSES
        )
        assert metrics.classes == expected.classes
        assert metrics.confusion == expected.confusion
        assert metrics.top2_accuracy == expected.top2_accuracy
        assert metrics.loss == pytest.approx(expected.loss, abs=1e-6)
        document = json.loads((out / "metrics.json").read_text())
        versions = document.pop("versions")
        assert document == {
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
        assert document["rows"] == 110
        assert {"fer_pipeline", "python", "tensorflow", "keras"} <= set(versions)

    def test_the_folder_holds_the_outputs_and_nothing_else(self, evaluation_and_folder):
        _, out = evaluation_and_folder
        assert {path.name for path in out.iterdir()} == set(OUTPUT_FILES)
        assert load_config(out / "config.yaml") == make_config()

    def test_the_plots_are_large_and_not_empty(self, evaluation_and_folder):
        pictures = [name for name in OUTPUT_FILES if name.endswith(".png")]
        assert len(pictures) == 8
        for name in pictures:
            picture = read_image(evaluation_and_folder[1] / name)
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.astype(np.int32) @ [1, 256, 65536])) > 20

    def test_the_batch_size_does_not_change_the_predictions(
        self, run, dataset, evaluation_and_folder, tmp_path
    ):
        evaluate(run, dataset, Split.TEST, tmp_path, make_config(256))
        small_batches, one_batch = (
            pq.read_table(out / "predictions.parquet").to_pylist()
            for out in (evaluation_and_folder[1], tmp_path)
        )
        assert one_batch == [
            {key: pytest.approx(v) if type(v) is float else v for key, v in row.items()}
            for row in small_batches
        ]

    def test_a_second_evaluation_gives_the_same_bytes(
        self, run, dataset, evaluation_and_folder, tmp_path
    ):
        evaluate(run, dataset, Split.TEST, tmp_path, make_config())
        assert read_files(tmp_path) == read_files(evaluation_and_folder[1])

    def test_the_report_contains_all_tables(self, splits, evaluation_and_folder):
        evaluation, out = evaluation_and_folder
        lines = format_report(evaluation, out).splitlines()
        rows = splits["test"]
        accuracy = (
            compute_expected_probabilities(rows.pixels).argmax(axis=1) == rows.labels
        ).mean()
        metrics = evaluation.metrics
        assert f"accuracy                 {100 * accuracy:.1f} % of 110 images" in "\n".join(lines)
        assert "\n".join(lines) == "\n\n".join(
            [
                tables.format_class_table(metrics),
                tables.format_overall_metrics(metrics),
                tables.format_overlap_table(evaluation.overlap),
                tables.format_coverage_table(metrics),
                tables.format_confusion_table(metrics),
                tables.format_confused_pairs(metrics),
                "\n".join(f"wrote {out / name}" for name in OUTPUT_FILES),
            ]
        )

    def test_mistakes_csv_lists_the_most_confident_mistakes(self, splits, evaluation_and_folder):
        rows = splits["test"]
        probabilities = compute_expected_probabilities(rows.pixels)
        predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        (wrong_rows,) = np.nonzero(predictions != rows.labels)
        worst_rows = wrong_rows[np.argsort(-confidence[wrong_rows], kind="stable")][:25]
        with (evaluation_and_folder[1] / "mistakes.csv").open(newline="") as file:
            mistakes = list(csv.DictReader(file))
        assert 20 < len(mistakes) == len(worst_rows)
        assert mistakes == [
            {
                "row": str(row),
                **{name: str(rows.origin(row)[name]) for name in ("source", "record", "variant")},
                "emotion": CLASSES[rows.labels[row]],
                "predicted": CLASSES[predictions[row]],
                "confidence": mistake["confidence"],
                "p_true": mistake["p_true"],
            }
            for row, mistake in zip(worst_rows, mistakes, strict=True)
        ]
        assert [float(mistake["confidence"]) for mistake in mistakes] == pytest.approx(
            confidence[worst_rows], abs=1e-5
        )
        assert [float(mistake["p_true"]) for mistake in mistakes] == pytest.approx(
            probabilities[worst_rows, rows.labels[worst_rows]], abs=1e-5
        )


def read_probabilities(out: Path) -> npt.NDArray[np.float64]:
    """Return the probabilities in the predictions, (n, classes)."""
    table = pq.read_table(out / "predictions.parquet")
    return np.stack([table.column(f"p_{name}").to_numpy() for name in CLASSES], axis=1)


@pytest.mark.usefixtures("undrawn_figures")
class TestSizeAndFlip:
    def test_images_of_another_size_are_resized(self, run, small_dataset, splits, tmp_path):
        evaluation = evaluate(run, small_dataset, Split.TEST, tmp_path, make_config())
        pixels = np.stack([resize(image, SIZE) for image in splits["test"].pixels[:, :9, :9]])
        assert read_probabilities(tmp_path) == pytest.approx(
            compute_expected_probabilities(pixels), abs=1e-5
        )
        document = json.loads((tmp_path / "metrics.json").read_text())
        assert (document["model"]["size"], document["dataset"]["size"]) == (SIZE, 9)
        assert evaluation.metrics.image_count == 110

    def test_flips_are_averaged(self, dataset, splits, tmp_path):
        left_run = make_run(tmp_path / "run", left=True)
        plain, flipped = tmp_path / "plain", tmp_path / "flipped"
        evaluate(left_run, dataset, Split.TEST, plain, make_config())
        config = make_config(flip=True)
        evaluation = evaluate(left_run, dataset, Split.TEST, flipped, config)
        pixels = splits["test"].pixels
        left_probabilities, right_probabilities = (
            compute_expected_probabilities(half) for half in (pixels[:, :, :8], pixels[:, :, 8:])
        )
        assert read_probabilities(plain) == pytest.approx(left_probabilities, abs=1e-5)
        assert read_probabilities(flipped) == pytest.approx(
            (left_probabilities + right_probabilities) / 2, abs=1e-5
        )
        assert abs(left_probabilities - right_probabilities).max() > 0.01
        expected = classification.compute_metrics(
            splits["test"].labels, (left_probabilities + right_probabilities) / 2, CLASSES
        )
        assert evaluation.metrics.loss == pytest.approx(expected.loss, abs=1e-5)
        flags = [
            json.loads((out / "metrics.json").read_text())["flip_tta"] for out in (plain, flipped)
        ]
        assert flags == [False, True]


def make_backend_config(backend: str) -> Config:
    """Return a configuration with a backend."""
    return load_config(None, [f"inference.backend={backend}", "inference.batch_size=6"])


@pytest.mark.usefixtures("undrawn_figures")
class TestBackend:
    @pytest.fixture(scope="class")
    def exported_run(self, tmp_path_factory):
        """A run with an export for LiteRT."""
        folder = make_run(tmp_path_factory.mktemp("exported") / "run")
        export(folder, None, ["litert"], load_config(None))
        return folder

    def test_the_backend_is_keras_unless_litert_is_configured(
        self, exported_run, dataset, tmp_path
    ):
        backends, probabilities = {}, {}
        for name in ("auto", "keras", "litert"):
            out = tmp_path / name
            evaluate(exported_run, dataset, Split.TEST, out, make_backend_config(name))
            backends[name] = json.loads((out / "metrics.json").read_text())["backend"]
            table = pq.read_table(out / "predictions.parquet")
            probabilities[name] = np.stack(
                [table.column(f"p_{name}").to_numpy() for name in CLASSES]
            )
        content = (exported_run / "export" / "model.tflite").read_bytes()
        assert backends["auto"] == backends["keras"]
        assert backends["keras"]["format"] == "model.keras"
        assert backends["litert"] == {
            "name": "litert",
            "format": "litert",
            "reason": "as configured",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        np.testing.assert_array_equal(probabilities["auto"], probabilities["keras"])
        np.testing.assert_allclose(probabilities["litert"], probabilities["keras"], atol=1e-5)

    def test_the_title_of_feature_maps_names_the_backend(
        self, exported_run, dataset, tmp_path, monkeypatch
    ):
        titles, draw = [], feature_maps.draw_feature_maps

        def record_title(*arguments: Any) -> None:
            titles.append(arguments[3])
            draw(*arguments)

        monkeypatch.setattr(feature_maps, "draw_feature_maps", record_title)
        for name in ("keras", "litert"):
            out = tmp_path / name
            evaluate(exported_run, dataset, Split.TEST, out, make_backend_config(name))
        subject = f"on the test split of {dataset.name}"
        assert titles == [
            f"model run {subject}",
            f"model run as litert {subject}; its layers as in Keras",
        ]

    def test_litert_needs_an_export(self, dataset, tmp_path):
        run = make_run(tmp_path / "run")
        with pytest.raises(RunError) as raised:
            evaluate(run, dataset, Split.TEST, tmp_path / "out", make_backend_config("litert"))
        assert "has no export" in str(raised.value)
        assert not (tmp_path / "out").exists()


def read_copies(out: Path) -> Any:
    """Return the metrics of the copies; None if there are none."""
    return json.loads((out / "metrics.json").read_text())["copies_in_training"]


def read_copy_column(out: Path) -> list[bool | None]:
    """Return whether each image has a copy in training."""
    return pq.read_table(out / "predictions.parquet").column("copy_in_training").to_pylist()


@pytest.mark.usefixtures("undrawn_figures")
class TestCopies:
    def test_copies_are_counted_and_left_out(self, splits, evaluation_and_folder):
        evaluation, out = evaluation_and_folder
        rows = splits["test"]
        probabilities = compute_expected_probabilities(rows.pixels)
        metrics_without_copies = classification.compute_metrics(
            rows.labels[20:], probabilities[20:], CLASSES
        )
        assert read_copies(out) == {
            "copies": 20,
            "deduplicated": False,
            "all": evaluation.metrics.accuracies_to_dict(),
            "without_copies": {
                **metrics_without_copies.accuracies_to_dict(),
                "classes": metrics_without_copies.to_dict()["classes"],
            },
        }
        assert metrics_without_copies.image_count == 90
        assert metrics_without_copies.accuracy != evaluation.metrics.accuracy

    def test_a_deduplicated_dataset_is_marked(self, run, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "data", config={"split": {"deduplicate": True}})
        evaluation = evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
        assert read_copies(tmp_path / "out")["deduplicated"] is True
        assert evaluation.overlap is not None
        assert evaluation.overlap.deduplicated

    def test_the_train_split_has_no_copies_in_training(self, run, dataset, tmp_path):
        evaluation = evaluate(run, dataset, Split.TRAIN, tmp_path, make_config())
        assert evaluation.overlap is read_copies(tmp_path) is None
        assert read_copy_column(tmp_path) == [None] * 20
        assert "exact cop" not in format_report(evaluation, tmp_path)

    def test_copies_are_unknown_without_a_train_split(self, run, splits, tmp_path):
        dataset = write_dataset(tmp_path / "data", {"test": splits["test"]})
        evaluation = evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
        assert evaluation.overlap is read_copies(tmp_path / "out") is None
        assert read_copy_column(tmp_path / "out") == [None] * 110

    def test_an_unreadable_or_missing_train_split_is_an_error(self, run, make_dataset, tmp_path):
        dataset = make_dataset(tmp_path / "data")
        (file,) = StoredDataset.open(dataset).manifest.files_in(Split.TRAIN)
        path = dataset / file.path
        with path.open("r+b") as opened:
            opened.seek(-12, os.SEEK_END)
            opened.write(b"\xff" * 4)
        with pytest.raises(DatasetError) as error:
            evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
        assert str(error.value).startswith(f"{path}: cannot be read (")
        path.unlink()
        with pytest.raises(DatasetError, match=r"parquet: is missing, the manifest says"):
            evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
        assert not (tmp_path / "out").exists()


def read_feature_maps(run: Path, dataset: Path, out: Path, **options: Any) -> bytes:
    """Evaluate a model and return the picture of the feature maps."""
    evaluate(run, dataset, Split.TEST, out, make_config(), **options)
    return (out / "feature_maps.png").read_bytes()


class TestPictures:
    @pytest.mark.usefixtures("undrawn_figures")
    def test_feature_maps_show_the_requested_layers_and_image(self, run, dataset, tmp_path):
        default_picture = read_feature_maps(run, dataset, tmp_path / "default")
        same_layer = read_feature_maps(run, dataset, tmp_path / "same", layers=["same"])
        third_image = read_feature_maps(run, dataset, tmp_path / "third", image=3)
        two_layers = read_feature_maps(run, dataset, tmp_path / "both", layers=["same", "logits"])
        assert same_layer == default_picture
        assert len({default_picture, third_image, two_layers}) == 3

    @pytest.mark.usefixtures("undrawn_figures")
    def test_the_last_image_of_the_split_can_be_requested(self, run, dataset, tmp_path):
        assert read_feature_maps(run, dataset, tmp_path / "out", image=109)

    def test_an_unknown_layer_is_an_error(self, run, dataset, tmp_path):
        with pytest.raises(RunError) as error:
            read_feature_maps(run, dataset, tmp_path / "out", layers=["sane"])
        message = str(error.value)
        assert message.startswith("--layers: the network has no layer 'sane' ")
        assert "did you mean same?" in message
        assert "same, average, logits" in message
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("image", [-1, 110])
    def test_an_image_outside_of_the_split_is_an_error(self, run, dataset, tmp_path, image):
        with pytest.raises(DatasetError) as error:
            read_feature_maps(run, dataset, tmp_path / "out", image=image)
        assert str(error.value) == (
            f"--image {image}: the test split of {dataset} has 110 rows; choose one of 0..109"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.usefixtures("undrawn_figures")
    def test_an_evaluation_without_convolutions_deletes_old_feature_maps(
        self, run, dataset, tmp_path
    ):
        run_without_convolution = make_run(tmp_path / "flat", convolution=False)
        out = tmp_path / "out"
        evaluate(run, dataset, Split.TEST, out, make_config())
        evaluation = evaluate(
            run_without_convolution, dataset, Split.TEST, out, make_config(), overwrite=True
        )
        names = [
            name
            for name in OUTPUT_FILES
            if name not in ("feature_maps.png", "class_activation.png")
        ]
        assert {path.name for path in out.iterdir()} == set(names)
        assert format_report(evaluation, out).splitlines()[-10:] == [
            f"wrote {out / name}" for name in names
        ]
        # The outputs of a requested layer are shown.
        evaluate(
            run_without_convolution,
            dataset,
            Split.TEST,
            out,
            make_config(),
            overwrite=True,
            layers=["average"],
        )
        assert (out / "feature_maps.png").is_file()


def expect_refusal(error_class: type[FerError], model: Path, dataset: Path, out: Path) -> str:
    """Assert that an evaluation fails and changes no file, and return the message."""
    before = read_files(out) if out.is_dir() else None
    with pytest.raises(error_class) as error:
        evaluate(model, dataset, Split.TEST, out, make_config())
    assert (read_files(out) if out.is_dir() else None) == before
    return str(error.value)


@pytest.mark.usefixtures("undrawn_figures")
class TestRefusals:
    @pytest.mark.parametrize("classes", [("angry", "happy", "fear"), ("happy", "angry", "sad")])
    def test_other_classes_or_another_order_are_refused(self, run, make_dataset, tmp_path, classes):
        dataset = make_dataset(tmp_path / "data", classes=list(classes))
        message = expect_refusal(DatasetError, run, dataset, tmp_path / "out")
        assert message.startswith(
            f"{dataset}: its classes are {', '.join(classes)}, the model of {run} was trained for"
            " angry, happy, sad; "
        )
        assert message.endswith("in the same order")

    def test_another_enhancement_is_refused(self, run, make_dataset, tmp_path):
        enhancement = Enhancement(equalize=True)
        image = ImageInfo(
            size=SIZE, dtype="uint8", normalization=NORMALIZATION, enhancement=enhancement
        )
        dataset = make_dataset(tmp_path / "data", image=image)
        message = expect_refusal(DatasetError, run, dataset, tmp_path / "out")
        assert message.startswith(
            f"{dataset}: the enhancement of its images is {enhancement}, the model"
        )

    def test_an_empty_split_is_refused(self, run, dataset, tmp_path):
        with pytest.raises(DatasetError, match="the validation split is empty"):
            evaluate(run, dataset, Split.VALIDATION, tmp_path / "out", make_config())
        assert not (tmp_path / "out").exists()

    def test_a_missing_dataset_or_run_is_an_error(self, run, dataset, tmp_path):
        missing, out = tmp_path / "nothing", tmp_path / "out"
        assert "no such folder" in expect_refusal(DatasetError, run, missing, out)
        assert "no such folder" in expect_refusal(RunError, missing, dataset, out)

    def test_an_evaluation_is_not_replaced_without_overwrite(
        self, run, dataset, evaluation_and_folder
    ):
        _, out = evaluation_and_folder
        assert expect_refusal(StorageError, run, dataset, out) == (
            f"{out}: holds an evaluation already; --overwrite replaces it"
        )

    def test_a_folder_of_other_files_is_refused(self, run, dataset, tmp_path):
        (tmp_path / "thesis.tex").write_text("three years of work")
        assert "it holds thesis.tex" in expect_refusal(StorageError, run, dataset, tmp_path)
        assert "not an evaluation" in expect_refusal(StorageError, run, dataset, run)

    def test_a_dataset_that_differs_from_its_manifest_is_refused(
        self, run, splits, make_dataset, tmp_path
    ):
        angry, happy, sad = np.bincount(splits["test"].labels).tolist()
        counts = {Split.TEST: {"angry": angry - 1, "happy": happy + 1, "sad": sad}}
        dataset = make_dataset(tmp_path / "data", counts=counts)
        message = expect_refusal(DatasetError, run, dataset, tmp_path / "out")
        assert message == (
            f"{dataset}: the test split holds {{'angry': {angry}, 'happy': {happy}, 'sad': {sad}}},"
            f" its manifest says {counts[Split.TEST]}; run preprocess again"
        )

    def test_a_model_without_finite_probabilities_is_refused(self, dataset, tmp_path):
        model = make_run(tmp_path / "run", bias=math.nan)
        message = expect_refusal(RunError, model, dataset, tmp_path / "out")
        assert message == (
            f"{model}: its model cannot be evaluated:"
            " expected probabilities, got values that are not finite"
        )


@pytest.mark.usefixtures("undrawn_figures")
class TestOverwrite:
    def test_an_overwrite_replaces_all_files(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, make_config(2))
        old_files = read_files(tmp_path)
        (tmp_path / ".metrics-a1b2c3_d.json").write_text("{")
        evaluate(run, dataset, Split.TEST, tmp_path, make_config(), overwrite=True)
        new_files = read_files(tmp_path)
        assert set(new_files) == set(OUTPUT_FILES)
        assert all(new_files[name] != old_files[name] for name in OUTPUT_FILES)

    def test_an_overwrite_that_fails_in_prediction_leaves_the_old_files_whole(
        self, dataset, evaluation_and_folder, tmp_path
    ):
        _, out = evaluation_and_folder
        old_files = read_files(out)
        broken_run = make_run(tmp_path / "run", bias=math.nan)
        with pytest.raises(RunError):
            evaluate(broken_run, dataset, Split.TEST, out, make_config(), overwrite=True)
        assert read_files(out) == old_files

    def test_an_overwrite_that_fails_in_writing_leaves_no_mixture(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, make_config())
        (tmp_path / "classes.png").unlink()
        (tmp_path / "classes.png").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"classes\.png: cannot be written"):
            evaluate(run, dataset, Split.TEST, tmp_path, make_config(), overwrite=True)
        assert not (tmp_path / "metrics.json").exists()
        (tmp_path / "classes.png").rmdir()
        # An incomplete evaluation is replaced without --overwrite.
        assert (
            evaluate(run, dataset, Split.TEST, tmp_path, make_config()).metrics.image_count == 110
        )


def list_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the package."""
    # TensorFlow warns of many models in one process, which users do not have.
    ours = [record for record in caplog.records if record.name.startswith("fer_pipeline")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.mark.usefixtures("undrawn_figures")
class TestWarnings:
    def test_a_usual_evaluation_logs_no_warning(self, run, dataset, tmp_path, caplog):
        evaluate(run, dataset, Split.TEST, tmp_path, make_config())
        assert list_warnings(caplog) == []

    def test_an_evaluation_on_the_train_split_logs_a_warning(self, run, dataset, tmp_path, caplog):
        assert (
            evaluate(run, dataset, Split.TRAIN, tmp_path, make_config()).metrics.image_count == 20
        )
        (message,) = list_warnings(caplog)
        assert message.startswith("the model was trained on the train split")

    def test_another_dataset_than_that_of_training_logs_a_warning(
        self, run, make_dataset, tmp_path, caplog
    ):
        dataset = make_dataset(tmp_path / "data", checksum="f" * 16)
        evaluate(run, dataset, Split.TEST, tmp_path / "out", make_config())
        (message,) = list_warnings(caplog)
        assert message.startswith(
            "the model was trained on a dataset with checksum fedcba9876543210, but this dataset"
            " has checksum ffffffffffffffff: the model may have been trained on images of this"
            " split; "
        )
        assert "in this dataset's train split" in message

    def test_another_image_size_logs_a_warning(self, run, small_dataset, tmp_path, caplog):
        evaluate(run, small_dataset, Split.TEST, tmp_path / "out", make_config())
        assert list_warnings(caplog) == [
            f"{small_dataset}: its images of 9x9 pixels are resized to 16x16 pixels for the model"
        ]


class TestJob:
    def test_the_job_writes_the_same_files_as_the_function(
        self, run, dataset, shared_process, tmp_path
    ):
        command = ["evaluate", "--model", run, "--dataset", dataset, "--split", "test"]
        command += ["--output", tmp_path / "out", "--set", "inference.batch_size=5"]
        command += ["--layers", "logits", "same", "--image", 7, "--flip-tta"]
        process = shared_process.run(*command)
        assert process.status == 0, process.err
        # The process prints the same report as this evaluation.
        options: dict[str, Any] = {"layers": ["logits", "same"], "image": 7}
        evaluation = evaluate(
            run, dataset, Split.TEST, tmp_path / "here", make_config(5, flip=True), **options
        )
        assert process.out == format_report(evaluation, tmp_path / "out") + "\n"
        assert read_files(tmp_path / "out") == read_files(tmp_path / "here")
        repeated_process = shared_process.run(*command)
        repeated_process.expect_error("holds an evaluation already")
        assert repeated_process.err.splitlines()[-1] == (
            f"error: {tmp_path / 'out'}: holds an evaluation already; --overwrite replaces it"
        )

    def test_the_help_does_not_import_tensorflow(self):
        process = show_help(
            JOB, {"tensorflow", "keras", "sklearn", "matplotlib", "pyspark", "petastorm"}
        )
        assert process.stdout.splitlines()[-1:] == ["[]"], process.stderr
        assert "--split {train,validation,test}" in process.stdout
        assert f"name of a bundled model; default: {DEFAULT_MODEL}" in " ".join(
            process.stdout.split()
        )
