"""Exports in 8-bit integers, the choice between Keras and LiteRT, and predictions with both."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt
import pytest

from fer_pipeline.config import load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import (
    DatasetError,
    FerError,
    MissingPackageError,
    RunError,
    StorageError,
)
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import EXPORT, EXPORT_FILES, IN_PROGRESS_FILE, RUN, RunFile
from fer_pipeline.learning.export import calibration_images, formats, litert
from fer_pipeline.learning.inference import backend, export_manifest, serving_model, trained_model
from fer_pipeline.learning.inference.export_manifest import ExportedModel, QuantizationReport
from fer_pipeline.learning.inference.predictor import (
    PredictorConfig,
    load_predict_fn,
    make_keras_predict_fn,
    make_litert_predict_fn,
    predict_with_flip,
)
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.pipelines.export import (
    export,
    format_report,
    list_default_formats,
    resolve_export_path,
)
from fer_pipeline.pipelines.train import train
from tests.helpers import finished_run
from tests.helpers.stored_datasets import make_easy_rows, write_dataset

SIZE = 16
CLASSES = ["angry", "happy", "sad"]
NORMALIZATION = Normalization.centered()

# The speeds of the formats are fixed, not measured.
pytestmark = pytest.mark.usefixtures("fixed_speeds")


# The model predicts the class with the nearest brightness; see `make_easy_rows`. The input of its
# ReLUs is a brightness between 0 and 2.
LEVELS = NORMALIZATION.lookup_table()[[42, 127, 212]].astype(np.float64) + 1
SHARPNESS = 5.0


def make_model() -> keras.Model:
    """Return a serving model that classifies by an average of the pixels with random weights."""
    keras.utils.set_random_seed(3)
    pixels = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(pixels)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(maps)
    means = keras.layers.Flatten()(maps)
    logits = keras.layers.Dense(len(CLASSES), name="logits")(means)
    model = serving_model.build_serving_model(keras.Model(pixels, logits), SIZE, NORMALIZATION, 1.5)
    random = np.random.default_rng(3)

    def make_averaging_kernel(shape: tuple[int, ...]) -> np.ndarray:
        kernel = random.uniform(0.8, 1.2, shape)
        return kernel / kernel.sum(axis=tuple(range(len(shape) - 1)))

    first, *normalization, second, bias, dense, _ = [weight.shape for weight in model.weights]
    # Scale, shift, mean and variance.
    batch_normalization = [np.full(normalization[0], number) for number in (1, 1, 0, 1)]
    # 2 * level * mean - level ** 2 is largest for the level that is nearest to the mean.
    weights = make_averaging_kernel(dense) * SHARPNESS * 2 * LEVELS
    convolutions = [
        make_averaging_kernel(first),
        *batch_normalization,
        make_averaging_kernel(second),
        np.zeros(bias),
    ]
    model.set_weights([*convolutions, weights, -SHARPNESS * LEVELS**2])
    return model


def make_run(folder: Path, model: keras.Model) -> Path:
    """Write a finished run of the model."""
    finished_run.save(folder, model, CLASSES, network="system_a")
    return folder


@pytest.fixture(scope="module")
def exported_run(easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an export in all formats in its folder."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run", make_model())
    export(run, None, list(EXPORT_FILES), load_config(None), dataset=easy_dataset)
    return run


@pytest.fixture(scope="module")
def faces(easy_dataset: Path) -> calibration_images.LabelledImages:
    """The validation split of the dataset."""
    return calibration_images.sample_calibration_and_trial_images(
        StoredDataset.open(easy_dataset), SIZE, 0
    )[1]


class TestCalibrationAndTrialImages:
    def test_calibration_uses_train_and_the_trial_uses_validation(self, easy_dataset) -> None:
        calibration, test = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), SIZE, 5
        )
        assert (calibration.split, len(calibration.labels)) == (Split.TRAIN, 115)
        assert (test.split, len(test.labels)) == (Split.VALIDATION, 40)
        assert test.pixels.dtype == np.uint8
        assert test.pixels.shape == (40, SIZE, SIZE)

    def test_the_seed_selects_the_rows_and_they_keep_their_labels(
        self, easy_dataset, monkeypatch
    ) -> None:
        monkeypatch.setattr(calibration_images, "MAX_CALIBRATION_IMAGES", 20)
        dataset = StoredDataset.open(easy_dataset)
        first, again, different = (
            calibration_images.sample_calibration_and_trial_images(dataset, SIZE, seed)[0]
            for seed in (1, 1, 2)
        )
        assert first.pixels.tobytes() == again.pixels.tobytes() != different.pixels.tobytes()
        # In this dataset the brightness follows from the label.
        assert ((first.pixels.mean(axis=(1, 2)) - 30) // 85).astype(int).tolist() == (
            first.labels.tolist()
        )

    @pytest.mark.parametrize("split", [Split.TRAIN, Split.VALIDATION])
    def test_a_single_split_is_divided_and_test_rows_are_not_used(
        self, rows, tmp_path, split
    ) -> None:
        write_dataset(tmp_path, {str(split): rows, "test": make_easy_rows(50, 9)})
        calibration, test = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(tmp_path), SIZE, 0
        )
        assert {calibration.split, test.split} == {split}
        sampled_faces = {face.tobytes() for face in (*calibration.pixels, *test.pixels)}
        # All rows are different.
        assert sampled_faces == {face.tobytes() for face in rows.pixels}
        assert len(calibration.labels) == len(rows.labels) // 2

    def test_images_of_another_size_are_resized(self, easy_dataset, faces) -> None:
        images = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), 9, 0
        )[1]
        expected = [resize(face, 9) for face in faces.pixels]
        assert images.pixels.tolist() == np.stack(expected).tolist()

    def test_a_single_row_is_refused(self, tmp_path) -> None:
        write_dataset(tmp_path, {"train": make_easy_rows(1, 0), "test": make_easy_rows(9, 1)})
        with pytest.raises(DatasetError, match="has one image outside its test split; int8"):
            calibration_images.sample_calibration_and_trial_images(
                StoredDataset.open(tmp_path), SIZE, 0
            )

    def test_a_dataset_of_test_rows_is_refused(self, rows, tmp_path) -> None:
        write_dataset(tmp_path, {"test": rows})
        with pytest.raises(DatasetError) as raised:
            calibration_images.sample_calibration_and_trial_images(
                StoredDataset.open(tmp_path), SIZE, 0
            )
        message = str(raised.value)
        assert message.startswith(f"{tmp_path}: has no image outside its test split; ")
        assert "prepare a dataset that has some" in message

    def test_the_trial_has_a_maximum_of_images(self, easy_dataset, monkeypatch) -> None:
        monkeypatch.setattr(calibration_images, "MAX_TRIAL_IMAGES", 7)
        trial = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), SIZE, 0
        )[1]
        assert len(trial.pixels) == len(trial.labels) == 7


def replace_int8_bias(monkeypatch: pytest.MonkeyPatch, bias: list[float]) -> None:
    """Make litert_int8 the conversion of a model with this bias of the logits."""
    convert_to_litert_int8 = litert.convert_to_litert_int8

    def convert(model: keras.Model, faces: npt.NDArray[np.uint8]) -> bytes:
        changed = formats.convert_to_float32(model)
        logits = next(layer for layer in changed._flatten_layers() if layer.name == "logits")
        logits.bias.assign(bias)
        # NaN cannot be quantized.
        is_finite = np.isfinite(bias).all()
        return (
            convert_to_litert_int8(changed, faces)
            if is_finite
            else litert.convert_to_litert(changed)
        )

    monkeypatch.setattr(litert, "convert_to_litert_int8", convert)


class TestInt8Export:
    def test_weights_are_int8_and_input_and_output_are_float32(self, exported_run) -> None:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(exported_run / "export" / "model.int8.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": ["probabilities"]}
        }
        (pixels,) = interpreter.get_input_details()
        (probabilities,) = interpreter.get_output_details()
        assert (pixels["dtype"], probabilities["dtype"]) == (np.float32, np.float32)
        kernels = [
            tensor for tensor in interpreter.get_tensor_details() if len(tensor["shape"]) == 4
        ]
        first, second = (tensor for tensor in kernels if tensor["shape"][0] == 8)
        assert (first["dtype"], second["dtype"]) == (np.float32, np.int8)
        # Each channel has its own scale.
        assert len(second["quantization_parameters"]["scales"]) == 8

    def test_a_single_convolution_is_quantized(self, faces) -> None:
        from ai_edge_litert.interpreter import Interpreter

        pixels = keras.Input((SIZE, SIZE, 1))
        maps = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(pixels / 255))
        logits = keras.layers.Dense(len(CLASSES), activation="softmax")(maps)
        content = litert.convert_to_litert_int8(keras.Model(pixels, logits), faces.pixels)
        details = Interpreter(model_content=content).get_tensor_details()
        (kernel,) = (tensor for tensor in details if [*tensor["shape"]] == [8, 3, 3, 1])
        assert kernel["dtype"] == np.int8

    def test_the_manifest_contains_the_measured_agreement(
        self, exported_run, easy_dataset, faces
    ) -> None:
        int8_export = export_manifest.read_export_manifest(exported_run / "export").exports[-1]
        model = formats.convert_to_float32(TrainedModel.open(exported_run).load_network())
        expected = formats.predict_on_cpu(model, faces.pixels)
        probabilities = formats.load_litert_predict_fn(exported_run / "export" / int8_export.path)(
            faces.pixels
        )
        assert int8_export.agreement == QuantizationReport(
            dataset={"path": str(easy_dataset), "checksum": "fedcba9876543210"},
            seed=0,
            calibration_split="train",
            calibration_images=115,
            split="validation",
            images=40,
            agreeing_images=np.sum(probabilities.argmax(1) == expected.argmax(1)),
            correct_images=np.sum(probabilities.argmax(1) == faces.labels),
            float_correct_images=np.sum(expected.argmax(1) == faces.labels),
        )
        # The decisions are clear: rounding changes none of them.
        assert int8_export.agreement is not None
        assert (int8_export.agreement.agreeing_images, int8_export.agreement.correct_images) == (
            40,
            40,
        )
        assert np.abs(probabilities - expected).max() < 0.05
        assert len(np.unique(probabilities.max(axis=1))) == 40
        assert (int8_export.largest_difference, int8_export.tolerance) == (None, None)

    def test_a_loss_of_accuracy_is_refused(
        self, exported_run, easy_dataset, faces, tmp_path, monkeypatch
    ) -> None:
        replace_int8_bias(monkeypatch, [0.0, 1000.0, 0.0])
        with pytest.raises(RunError) as raised:
            export(
                exported_run,
                tmp_path / "out",
                ["litert_int8"],
                load_config(None),
                dataset=easy_dataset,
            )
        message = str(raised.value)
        assert message.startswith(f"{exported_run}: ")
        assert (
            f"litert_int8 it classifies {(faces.labels == 1).sum()} of 40 images correctly,"
            " in float32 40"
        ) in message
        assert "a loss of 1% is allowed" in message
        assert "nothing was exported" in message
        assert "--format" in message
        assert not (tmp_path / "out").exists()

    def test_probabilities_that_are_not_finite_are_refused(
        self, exported_run, easy_dataset, tmp_path, monkeypatch
    ) -> None:
        replace_int8_bias(monkeypatch, [np.nan, 0.0, 0.0])
        with pytest.raises(RunError) as raised:
            export(
                exported_run,
                tmp_path / "out",
                ["litert_int8"],
                load_config(None),
                dataset=easy_dataset,
            )
        message = str(raised.value)
        assert message.startswith(
            f"{exported_run}: as litert_int8 its probabilities are not finite "
        )
        assert "40 of 40 images" in message
        assert "nothing was exported" in message
        assert not (tmp_path / "out").exists()

    def test_a_dataset_that_is_not_the_training_dataset_is_a_warning(
        self, exported_run, easy_dataset, tmp_path, caplog
    ) -> None:
        other_dataset = shutil.copytree(easy_dataset, tmp_path / "other")
        manifest = StoredDataset.open(other_dataset).manifest
        manifest.model_copy(update={"checksum": "0123456789abcdef"}).write(other_dataset)
        warnings = []
        for dataset in (easy_dataset, other_dataset):
            caplog.clear()
            export(
                exported_run,
                tmp_path / f"of {dataset.name}",
                ["litert_int8"],
                load_config(None),
                dataset=dataset,
            )
            warnings.append([m for m in caplog.messages if "is not the dataset" in m])
        (own_warnings, (other_warning,)) = warnings
        assert own_warnings == []
        assert other_warning.startswith(f"{other_dataset}: is not the dataset")
        assert "its checksum is 0123456789abcdef, expected fedcba9876543210" in other_warning
        assert "litert_int8" in other_warning

    def test_a_dataset_that_no_format_needs_is_refused(self, exported_run, tmp_path) -> None:
        with pytest.raises(RunError) as raised:
            export(exported_run, tmp_path / "out", ["litert"], load_config(None), dataset="data/a")
        message = str(raised.value)
        assert message.startswith("data/a: no chosen format needs a dataset")
        assert "add --format litert_int8" in message
        assert "leave --dataset out" in message

    def test_int8_without_a_dataset_is_refused(self, exported_run, tmp_path) -> None:
        assert list_default_formats(None) == ["saved_model", "litert"]
        assert list_default_formats("data") == ["saved_model", "litert", "litert_int8"]
        with pytest.raises(RunError) as raised:
            export(exported_run, tmp_path / "out", ["litert_int8"], load_config(None))
        message = str(raised.value)
        assert message.startswith(f"{exported_run}: litert_int8 is calibrated on images")
        assert "--dataset" in message
        assert "preprocess job" in message

    def test_a_dataset_with_other_classes_is_refused(
        self, exported_run, easy_dataset, tmp_path
    ) -> None:
        run = make_run(tmp_path / "run", make_model())
        model_info = json.loads((run / RunFile.MODEL_INFO).read_text())
        model_info["classes"] = ["sad", "angry", "happy"]
        (run / RunFile.MODEL_INFO).write_text(json.dumps(model_info))
        with pytest.raises(DatasetError, match="its classes are angry, happy, sad"):
            export(run, None, ["litert_int8"], load_config(None), dataset=easy_dataset)

    def test_the_report_shows_the_loss_of_accuracy(self, exported_run) -> None:
        manifest = export_manifest.read_export_manifest(exported_run / "export")
        lines = format_report(manifest, exported_run / "export").splitlines()
        agreement = manifest.exports[-1].agreement
        assert agreement is not None
        assert [line.split()[0] for line in lines[1:4]] == list(EXPORT_FILES)
        assert (
            f"in 8-bit integers, on 40 images of the validation split: accuracy"
            f" {agreement.correct_images / 40:.2%},"
            f" in float32 {agreement.float_correct_images / 40:.2%},"
            f" the same emotion for {agreement.agreeing_images / 40:.2%}"
        ) in lines
        assert (
            "score uses it only with --backend litert: it was tested on 40 images, 500 are needed"
        ) in lines


class TestExportFolder:
    def test_the_default_is_in_the_run_except_for_a_bundled_model(
        self, exported_run, tmp_path, monkeypatch
    ) -> None:
        assert resolve_export_path(exported_run, None) == exported_run / "export"
        assert resolve_export_path(exported_run, tmp_path / "x") == tmp_path / "x"
        pretrained = tmp_path / "pretrained"
        (pretrained / "compact").mkdir(parents=True)
        (pretrained / "compact" / RunFile.MODEL_INFO).write_text("{}")
        monkeypatch.setattr(trained_model, "PRETRAINED_FOLDER", pretrained)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            StorageError,
            match="compact: is a bundled model; choose a folder of your own with --output",
        ):
            resolve_export_path("compact", None)
        assert resolve_export_path("compact", "mine") == Path("mine")

    def test_only_a_run_in_progress_may_be_written_beside_an_export(
        self, exported_run, tmp_path
    ) -> None:
        run = tmp_path / "run"
        (run / "export").mkdir(parents=True)
        with pytest.raises(StorageError, match="not a finished training run"):
            OutputFolder(run, RUN).ensure_writable()
        (run / IN_PROGRESS_FILE).touch()
        OutputFolder(run, RUN).ensure_writable()


class TestReplacedRun:
    def test_its_export_is_deleted_but_no_foreign_files(
        self, easy_dataset, exported_run, tmp_path
    ) -> None:
        settings = ["model.name=system_a", "model.options.hidden=4", "training.steps=4"]
        tiny = load_config(None, [*settings, "training.precision=float32"])
        run = tmp_path / "run"
        train(str(easy_dataset), str(run), tiny)
        shutil.copytree(exported_run / "export", run / "export")
        (run / "export" / "notes.txt").write_text("mine")
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert [path.name for path in (run / "export").iterdir()] == ["notes.txt"]
        (run / "export" / "notes.txt").unlink()
        (run / "export" / EXPORT.commit_file).write_text('{"format": "fer_pipeline export"}')
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert not (run / "export").exists()

    def test_an_export_that_cannot_be_deleted_is_a_warning(
        self, easy_dataset, exported_run, tmp_path, caplog
    ) -> None:
        settings = ["model.name=system_a", "model.options.hidden=4", "training.steps=4"]
        tiny = load_config(None, [*settings, "training.precision=float32"])
        run = tmp_path / "run"
        train(str(easy_dataset), str(run), tiny)
        shutil.copytree(exported_run / "export", tmp_path / "theirs")
        (run / "export").symlink_to(tmp_path / "theirs")
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert any(
            "an export of the replaced model cannot be deleted" in message
            for message in caplog.messages
        )
        assert (tmp_path / "theirs" / EXPORT.commit_file).is_file()
        with pytest.raises(RunError, match=r"/export: is an export of a different model than"):
            choose_backend(run, "litert")


class TestPredictFunctions:
    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    def test_probabilities_do_not_depend_on_the_batch_size(
        self, exported_run, faces, batch_size
    ) -> None:
        content = (exported_run / "export" / "model.tflite").read_bytes()
        expected = formats.predict_on_cpu(
            TrainedModel.open(exported_run).load_network(), faces.pixels
        )
        predict_fn = make_litert_predict_fn(content, batch_size)
        for count in (40, 3, 40, 1):
            probabilities = predict_fn(faces.pixels[:count])
            assert probabilities.dtype == np.float32
            assert probabilities.shape == (count, 3)
            np.testing.assert_allclose(probabilities, expected[:count], rtol=0, atol=1e-5)

    def test_litert_writes_nothing_to_stderr(self) -> None:
        # A new process: LiteRT writes its message about the processor only once.
        path = trained_model.PRETRAINED_FOLDER / "mirrored" / "export" / "model.tflite"
        code = (
            "import numpy as np, pathlib, sys;"
            " from fer_pipeline.learning.inference.predictor import make_litert_predict_fn;"
            " predict = make_litert_predict_fn(pathlib.Path(sys.argv[1]).read_bytes(), 4);"
            " print(predict(np.zeros((5, 48, 48), np.uint8)).shape)"
        )
        process = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
        )
        assert (process.stdout, process.stderr) == ("(5, 7)\n", "")

    def test_more_images_than_the_largest_litert_batch(self, exported_run, faces) -> None:
        content = (exported_run / "export" / "model.tflite").read_bytes()
        many = np.concatenate([faces.pixels] * 5)
        probabilities = make_litert_predict_fn(content, 1000)(many)
        expected = formats.predict_on_cpu(TrainedModel.open(exported_run).load_network(), many)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["keras", "litert"])
    def test_flip_tta_is_the_mean_with_the_mirror_images(self, exported_run, faces, name) -> None:
        path = exported_run / ("model.keras" if name == "keras" else "export/model.tflite")
        model = TrainedModel.open(exported_run).load_network()
        mirrored = formats.predict_on_cpu(model, faces.pixels[:, :, ::-1])
        expected = (formats.predict_on_cpu(model, faces.pixels) + mirrored) / 2
        if name == "keras":
            predict_fn = make_keras_predict_fn(model, SIZE, 7)
            probabilities = predict_with_flip(predict_fn, faces.pixels)
        else:
            settings = PredictorConfig(name, "system_a", SIZE, 7, 1, flip_tta=True)
            probabilities = load_predict_fn(path.read_bytes(), settings)(faces.pixels)
        assert np.abs(mirrored - expected).max() > 1e-3
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)

    def test_predictions_by_litert_import_no_tensorflow(self, exported_run) -> None:
        code = (
            "import sys, numpy\n"
            "from fer_pipeline.learning.inference.predictor import (\n"
            "    PredictorConfig, load_predict_fn\n"
            ")\n"
            "content = open(sys.argv[1], 'rb').read()\n"
            "config = PredictorConfig('litert', 'system_a', 16, 8, 1)\n"
            "predict_fn = load_predict_fn(content, config)\n"
            "print(predict_fn(numpy.zeros((9, 16, 16), numpy.uint8)).shape)\n"
            "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        )
        command = [sys.executable, "-c", code, str(exported_run / "export" / "model.int8.tflite")]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        assert process.stdout.splitlines() == ["(9, 3)", "[]"]

    def test_the_score_pipeline_imports_no_tensorflow(self) -> None:
        code = (
            "import sys\n"
            "import fer_pipeline.pipelines.score\n"
            "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        )
        command = [sys.executable, "-c", code]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
        assert process.stdout == "[]\n"


# --- The choice between Keras and LiteRT.


def make_report(
    images: int = 10_000, lost: int = 0, agreeing_images: int | None = None
) -> QuantizationReport:
    """Return a report on images of which half are classified correctly in float32.

    Args:
        images: Number of images.
        lost: Number of correct classifications that int8 loses; negative if it gains some.
        agreeing_images: Number of images with the same prediction; all by default.
    """
    return QuantizationReport(
        dataset={},
        seed=0,
        calibration_split="train",
        calibration_images=1,
        split="validation",
        images=images,
        agreeing_images=images if agreeing_images is None else agreeing_images,
        correct_images=images // 2 - lost,
        float_correct_images=images // 2,
    )


def make_export(
    name: str, speed: float | None, agreement: QuantizationReport | None = None
) -> ExportedModel:
    """Return the entry of an export in the manifest."""
    return ExportedModel(
        format=name,
        path=EXPORT_FILES[name],
        bytes=1,
        largest_difference=0.0,
        tolerance=0.1,
        agreement=agreement,
        relative_speed=speed,
        sha256={},
    )


def write_run_with_exports(
    exported_run: Path, run: Path, *exports: ExportedModel, sha256: str | None = None
) -> Path:
    """Write a run with the model and the export files of another run, and with another manifest.

    Args:
        exported_run: Run with an export in all formats.
        run: Folder of the new run.
        exports: Entries of the manifest.
        sha256: Checksum of the exported model in the manifest; the right one by default.
    """
    (run / "export").mkdir(parents=True)
    for name in (RunFile.MODEL, RunFile.MODEL_INFO):
        (run / name).write_bytes((exported_run / name).read_bytes())
    manifest = export_manifest.read_export_manifest(exported_run / "export")
    entries = []
    for entry in exports:
        source = exported_run / "export" / entry.path
        checksums = entry.sha256
        if source.is_file():
            (run / "export" / entry.path).write_bytes(source.read_bytes())
            checksums = {entry.path: trained_model.compute_sha256(source)}
        entries.append(entry.model_copy(update={"sha256": checksums}))
    update = {
        "exports": entries,
        "model": {**manifest.model, "sha256": sha256 or manifest.model["sha256"]},
    }
    text = manifest.model_copy(update=update).model_dump_json()
    (run / "export" / EXPORT.commit_file).write_text(text)
    return run


def choose_backend(
    run: Path, preference: Literal["auto", "keras", "litert"]
) -> backend.InferenceBackend:
    """Return the backend for the model of a run."""
    model = TrainedModel.open(run)
    return backend.choose_backend(model, model.read_content(), preference)


def make_int8_export(speed: float | None, **trial: int) -> ExportedModel:
    """Return the entry of an export in 8-bit integers; the trial's counts are `make_report`'s."""
    return make_export("litert_int8", speed, make_report(**trial))


SLOW = make_export("litert", 0.9)
FAST = make_export("litert", 1.1)
KERAS = "model.keras"
NO_FASTER_EXPORT = "no equivalent LiteRT export is faster"
SPEED_REASON = "{} times as fast as keras when it was exported"
TRIAL_REASON = (
    "; on 10,000 images of the validation split it predicted the same emotion for 100.00% and lost"
    " {} points of accuracy"
)


class TestEquivalence:
    @pytest.mark.parametrize(
        ("trial", "reason"),
        [
            ({}, None),
            ({"lost": -500}, None),
            # 0.2 points, which as a difference of two quotients are more than 0.002.
            ({"lost": 20}, None),
            ({"images": 1000, "lost": 2}, None),
            ({"images": 3500, "lost": 7}, None),
            ({"lost": 21}, "it loses 0.21 points of accuracy"),
            ({"images": 1000, "lost": 9}, "it loses 0.90 points of accuracy"),
            ({"agreeing_images": 9700}, None),
            ({"agreeing_images": 9699}, "it predicts a different emotion for 3.01% of the images"),
            ({"images": 500}, None),
            ({"images": 499}, "it was tested on 499 images, 500 are needed"),
        ],
    )
    def test_the_counts_of_the_trial_decide(self, trial, reason) -> None:
        int8_export = make_int8_export(1.0, **trial)
        assert (int8_export.mismatch_reason, int8_export.is_equivalent) == (reason, reason is None)
        read = ExportedModel.model_validate_json(int8_export.model_dump_json())
        assert read == int8_export

    @pytest.mark.parametrize(
        ("lost", "change"), [(7, "lost 0.07"), (0, "lost 0.00"), (-7, "gained 0.07")]
    )
    def test_the_description_contains_the_change_of_accuracy(self, lost, change) -> None:
        assert make_report(lost=lost).describe().endswith(f"and {change} points of accuracy")

    def test_an_export_in_float32_is_always_equivalent(self) -> None:
        assert (FAST.is_equivalent, FAST.mismatch_reason) == (True, None)


class TestChooseBackend:
    @pytest.mark.parametrize(
        ("exports", "preference", "expected", "reason"),
        [
            ([FAST, make_int8_export(3.0)], "keras", KERAS, "as configured"),
            (
                [FAST, make_int8_export(3.0)],
                "litert",
                "litert_int8",
                "as configured" + TRIAL_REASON.format("0.00"),
            ),
            (
                [FAST, make_int8_export(3.0, lost=70)],
                "litert",
                "litert_int8",
                "as configured" + TRIAL_REASON.format("0.70"),
            ),
            ([SLOW], "litert", "litert", "as configured"),
            ([make_export("litert", None)], "litert", "litert", "as configured"),
            (
                [FAST, make_int8_export(3.0)],
                "auto",
                "litert_int8",
                SPEED_REASON.format("3.00") + TRIAL_REASON.format("0.00"),
            ),
            (
                [FAST, make_int8_export(123.456, lost=20)],
                "auto",
                "litert_int8",
                SPEED_REASON.format("123.46") + TRIAL_REASON.format("0.20"),
            ),
            # Faster, but not equivalent.
            ([FAST, make_int8_export(3.0, lost=21)], "auto", "litert", SPEED_REASON.format("1.10")),
            (
                [SLOW, make_int8_export(3.0, images=100)],
                "auto",
                KERAS,
                f"{NO_FASTER_EXPORT}; litert_int8: it was tested on 100 images, 500 are needed",
            ),
            # Equivalent, but not faster.
            ([SLOW, make_int8_export(1.0)], "auto", KERAS, NO_FASTER_EXPORT),
            ([FAST, make_int8_export(1.05)], "auto", "litert", SPEED_REASON.format("1.10")),
            # Exported before speeds were measured.
            ([make_export("litert", None)], "auto", KERAS, NO_FASTER_EXPORT),
            ([make_export("saved_model", 9.0)], "keras", KERAS, "as configured"),
        ],
    )
    def test_the_manifest_of_the_export_decides(
        self, exported_run, tmp_path, caplog, exports, preference, expected, reason
    ) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "made", *exports)
        caplog.set_level("INFO", logger=backend.__name__)
        choice = choose_backend(run, preference)
        path = (
            run / "model.keras"
            if expected == "model.keras"
            else run / "export" / EXPORT_FILES[expected]
        )
        assert (choice.format, choice.name) == (
            expected,
            "keras" if expected == "model.keras" else "litert",
        )
        assert (choice.content, choice.sha256) == (
            path.read_bytes(),
            trained_model.compute_sha256(path),
        )
        assert caplog.messages[-1] == f"using {choice.name} ({choice.format}): {reason}"
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == (
            ["litert_int8 is not equivalent to the model: it loses 0.70 points of accuracy"]
            if "lost 0.70" in reason
            else []
        )
        assert choice.to_dict() == {
            "name": choice.name,
            "format": expected,
            "reason": reason,
            "sha256": choice.sha256,
        }

    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            ("none", "{run}: has no export; create one with: export --model {run} --dataset DIR"),
            (
                "another model",
                "{run}/export: is an export of a different model than {run}/model.keras; replace it"
                " with: export --model {run} --dataset DIR --overwrite",
            ),
            (
                "no form",
                "{run}/export: has no LiteRT format; add one with: export --model {run} --dataset"
                " DIR --overwrite",
            ),
            (
                "no file",
                "{run}/export/model.tflite: no such file; replace it"
                " with: export --model {run} --dataset DIR --overwrite",
            ),
            (
                "damaged",
                "{run}/export/model.tflite: is not the file that export.json describes; replace it"
                " with: export --model {run} --dataset DIR --overwrite",
            ),
            ("torn", "{run}/export/export.json: is damaged: "),
        ],
    )
    def test_a_missing_or_damaged_export_is_an_error_only_if_litert_is_configured(
        self, exported_run, tmp_path, state, expected
    ) -> None:
        run = write_run_with_exports(
            exported_run,
            tmp_path / "made",
            make_export("saved_model", 2.0) if state == "no form" else FAST,
            sha256="0" * 64 if state == "another model" else None,
        )
        file = run / "export" / "model.tflite"
        match state:
            case "none":
                (run / "export" / "export.json").unlink()
            case "no file":
                file.unlink()
            case "damaged":
                file.write_bytes(file.read_bytes()[:-1])
            case "torn":
                (run / "export" / "export.json").write_text("{")
        with pytest.raises(FerError) as raised:
            choose_backend(run, "litert")
        message = str(raised.value)
        assert message.startswith(expected.format(run=run))
        assert "\n" not in message
        # Without a preference, Keras is used and the reason is the same message.
        choice = choose_backend(run, "auto")
        assert (choice.format, choice.reason) == ("model.keras", message)
        assert dataclasses.replace(choose_backend(run, "keras"), reason=message) == choice

    @pytest.mark.parametrize("state", ["none", "another model", "no form", "damaged"])
    def test_a_bundled_model_without_its_export_is_an_incomplete_installation(
        self, exported_run, tmp_path, monkeypatch, state
    ) -> None:
        run = write_run_with_exports(
            exported_run,
            tmp_path / "made",
            make_export("saved_model", 2.0) if state == "no form" else FAST,
            sha256="0" * 64 if state == "another model" else None,
        )
        monkeypatch.setattr(trained_model, "PRETRAINED_FOLDER", run.parent)
        if state == "none":
            (run / "export" / "export.json").unlink()
        if state == "damaged":
            (run / "export" / "model.tflite").write_bytes(b"")
        with pytest.raises(RunError) as raised:
            choose_backend(run, "litert")
        assert "the installation is incomplete" in str(raised.value)
        assert "reinstall the package" in str(raised.value)
        assert "--backend keras" in str(raised.value)
        assert "--model" not in str(raised.value)


class TestWithoutTensorFlow:
    @pytest.fixture(autouse=True)
    def hide_tensorflow(self, exported_run, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorflow", None)

    @pytest.mark.parametrize(
        ("exports", "expected"),
        [
            ([SLOW], "litert"),
            ([make_export("litert", None)], "litert"),
            ([SLOW, make_int8_export(1.0)], "litert_int8"),
            ([SLOW, make_int8_export(3.0, lost=21)], "litert"),
            ([make_int8_export(None), make_export("litert", None)], "litert"),
            ([make_int8_export(None)], "litert_int8"),
        ],
    )
    def test_auto_is_the_fastest_equivalent_export(
        self, exported_run, tmp_path, exports, expected
    ) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", *exports)
        choice = choose_backend(run, "auto")
        assert (choice.name, choice.format) == ("litert", expected)
        trial = TRIAL_REASON.format("0.00") if expected == "litert_int8" else ""
        assert choice.reason == f"TensorFlow is not installed{trial}"

    def test_auto_refuses_an_export_that_is_not_equivalent(self, exported_run, tmp_path) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", make_int8_export(3.0, lost=21))
        with pytest.raises(RunError) as raised:
            choose_backend(run, "auto")
        message = str(raised.value)
        assert message.startswith(f"{run}/export: its only LiteRT export, litert_int8, is not ")
        assert "it loses 0.21 points of accuracy" in message
        assert "choose --backend litert" in message
        assert message.endswith("pip install 'fer_pipeline[train]'")
        assert choose_backend(run, "litert").format == "litert_int8"

    def test_keras_names_the_extra(self, exported_run) -> None:
        with pytest.raises(MissingPackageError) as raised:
            choose_backend(exported_run, "keras")
        expected = "tensorflow is not installed: pip install 'fer_pipeline[train]'"
        assert str(raised.value) == expected

    @pytest.mark.parametrize("preference", ["auto", "litert"])
    @pytest.mark.parametrize("is_bundled", [False, True])
    def test_a_missing_export_names_both_ways_out(
        self, exported_run, tmp_path, monkeypatch, preference, is_bundled
    ) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", FAST)
        (run / "export" / "export.json").unlink()
        if is_bundled:
            monkeypatch.setattr(trained_model, "PRETRAINED_FOLDER", tmp_path)
        with pytest.raises(RunError) as raised:
            choose_backend(run, preference)
        assert str(raised.value) == f"{run}: has no export; " + (
            "the installation is incomplete: reinstall the package, or"
            " pip install 'fer_pipeline[train]'"
            if is_bundled
            else "create one where TensorFlow is installed, with: export --model"
            f" {run} --dataset DIR; or install TensorFlow here: pip install 'fer_pipeline[train]'"
        )

    def test_predict_runs_the_export_in_float32(
        self, exported_run, tmp_path, faces, monkeypatch, caplog
    ) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", make_int8_export(9.0), SLOW)
        caplog.set_level("INFO", logger=trained_model.__name__)
        model = TrainedModel.load(run)
        assert caplog.messages == ["TensorFlow is not installed: using the export litert of r"]
        probabilities = model.predict(faces.pixels)
        flipped = model.predict(faces.pixels, flip_tta=True)
        monkeypatch.undo()
        with_keras = TrainedModel.open(run)
        np.testing.assert_allclose(probabilities, with_keras.predict(faces.pixels), atol=1e-5)
        expected = with_keras.predict(faces.pixels, flip_tta=True)
        np.testing.assert_allclose(flipped, expected, atol=1e-5)

    def test_predict_runs_an_export_in_8_bit_integers_if_there_is_no_other(
        self, exported_run, tmp_path, faces, caplog
    ) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", make_int8_export(9.0, lost=70))
        content = (run / "export" / "model.int8.tflite").read_bytes()
        probabilities = TrainedModel.open(run).predict(faces.pixels)
        expected = make_litert_predict_fn(content, 4)(faces.pixels)
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == [
            "litert_int8 is not equivalent to the model: it loses 0.70 points of accuracy"
        ]

    def test_predict_refuses_a_damaged_export(self, exported_run, tmp_path, faces) -> None:
        run = write_run_with_exports(exported_run, tmp_path / "r", FAST)
        (run / "export" / "model.tflite").write_bytes(b"")
        with pytest.raises(RunError, match="is not the file that export"):
            TrainedModel.open(run).predict(faces.pixels)
