"""LiteRT beside Keras: exports in 8-bit integers, what scores, and how a worker runs it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline.config import load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
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

SIZE, CLASSES = 16, ["angry", "happy", "sad"]
NORMALIZATION = Normalization.centered()

# The speeds of the forms are given, not measured.
pytestmark = pytest.mark.usefixtures("fixed_speeds")


# The model takes a face for the class whose brightness is nearest; see `bright_and_dark`. Its ReLUs
# see brightness from 0 to 2.
LEVELS = NORMALIZATION.lookup_table()[[42, 127, 212]].astype(np.float64) + 1
SHARPNESS = 5.0


def make_model() -> keras.Model:
    """A model that averages brightness, here a little more and there a little less, and decides."""
    keras.utils.set_random_seed(3)
    pixels = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(pixels)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
    maps = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(maps)
    means = keras.layers.Flatten()(maps)
    logits = keras.layers.Dense(len(CLASSES), name="logits")(means)
    model = serving_model.build_serving_model(keras.Model(pixels, logits), SIZE, NORMALIZATION, 1.5)
    random = np.random.default_rng(3)

    def averaging(shape: tuple[int, ...]) -> np.ndarray:
        kernel = random.uniform(0.8, 1.2, shape)
        return kernel / kernel.sum(axis=tuple(range(len(shape) - 1)))

    first, *normalization, second, bias, dense, _ = [weight.shape for weight in model.weights]
    # Scale, shift, mean and variance.
    normalized = [np.full(normalization[0], value) for value in (1, 1, 0, 1)]
    # The nearest level has the largest 2 * level * mean - level ** 2.
    weights = averaging(dense) * SHARPNESS * 2 * LEVELS
    convolutions = [averaging(first), *normalized, averaging(second), np.zeros(bias)]
    model.set_weights([*convolutions, weights, -SHARPNESS * LEVELS**2])
    return model


def make_run(folder: Path, model: keras.Model) -> Path:
    finished_run.save(folder, model, CLASSES, network="system_a")
    return folder


@pytest.fixture(scope="module")
def whole(easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an export of every form in its folder."""
    run = make_run(tmp_path_factory.mktemp("whole") / "run", make_model())
    export(run, None, list(EXPORT_FILES), load_config(None), dataset=easy_dataset)
    return run


@pytest.fixture(scope="module")
def faces(easy_dataset: Path) -> calibration_images.LabelledImages:
    """The validation split of the dataset."""
    return calibration_images.sample_calibration_and_trial_images(
        StoredDataset.open(easy_dataset), SIZE, 0
    )[1]


class TestSampling:
    def test_from_train_and_from_validation(self, easy_dataset) -> None:
        calibration, test = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), SIZE, 5
        )
        assert (calibration.split, len(calibration.labels)) == (Split.TRAIN, 115)
        assert (test.split, len(test.labels)) == (Split.VALIDATION, 40)
        assert (test.pixels.dtype, test.pixels.shape) == (np.uint8, (40, SIZE, SIZE))

    def test_the_seed_chooses_and_rows_keep_their_labels(self, easy_dataset, monkeypatch) -> None:
        monkeypatch.setattr(calibration_images, "MAX_CALIBRATION_IMAGES", 20)
        dataset = StoredDataset.open(easy_dataset)
        one, again, other = (
            calibration_images.sample_calibration_and_trial_images(dataset, SIZE, seed)[0]
            for seed in (1, 1, 2)
        )
        assert one.pixels.tobytes() == again.pixels.tobytes() != other.pixels.tobytes()
        # Of this dataset, the label is the brightness.
        assert ((one.pixels.mean(axis=(1, 2)) - 30) // 85).astype(int).tolist() == (
            one.labels.tolist()
        )

    @pytest.mark.parametrize("split", [Split.TRAIN, Split.VALIDATION])
    def test_of_one_split_no_row_is_in_both_and_none_is_of_test(
        self, write_dataset, bright_and_dark, rows, tmp_path, split
    ) -> None:
        write_dataset(tmp_path, {str(split): rows, "test": bright_and_dark(50, 9)})
        calibration, test = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(tmp_path), SIZE, 0
        )
        assert {calibration.split, test.split} == {split}
        found = {face.tobytes() for face in (*calibration.pixels, *test.pixels)}
        # No two of the rows are alike.
        assert found == {face.tobytes() for face in rows.pixels}
        assert len(calibration.labels) == len(rows.labels) // 2

    def test_other_sizes_are_resized(self, easy_dataset, faces) -> None:
        found = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), 9, 0
        )[1]
        expected = [resize(face, 9) for face in faces.pixels]
        assert found.pixels.tolist() == np.stack(expected).tolist()

    def test_one_row_is_too_few(self, write_dataset, bright_and_dark, tmp_path) -> None:
        write_dataset(tmp_path, {"train": bright_and_dark(1, 0), "test": bright_and_dark(9, 1)})
        with pytest.raises(DatasetError, match="has one image outside its test split; int8"):
            calibration_images.sample_calibration_and_trial_images(
                StoredDataset.open(tmp_path), SIZE, 0
            )

    def test_the_test_split_alone_is_refused(self, write_dataset, rows, tmp_path) -> None:
        write_dataset(tmp_path, {"test": rows})
        with pytest.raises(DatasetError) as raised:
            calibration_images.sample_calibration_and_trial_images(
                StoredDataset.open(tmp_path), SIZE, 0
            )
        message = str(raised.value)
        assert message.startswith(f"{tmp_path}: has no image outside its test split; ")
        assert "prepare a dataset that has some" in message

    def test_a_trial_has_an_end(self, easy_dataset, monkeypatch) -> None:
        monkeypatch.setattr(calibration_images, "MAX_TRIAL_IMAGES", 7)
        trial = calibration_images.sample_calibration_and_trial_images(
            StoredDataset.open(easy_dataset), SIZE, 0
        )[1]
        assert len(trial.pixels) == len(trial.labels) == 7


class TestInt8:
    def test_weights_are_bytes_and_both_ends_are_not(self, whole) -> None:
        from ai_edge_litert.interpreter import Interpreter

        read = Interpreter(str(whole / "export" / "model.int8.tflite"))
        assert read.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": ["probabilities"]}
        }
        (given,), (made,) = read.get_input_details(), read.get_output_details()
        assert (given["dtype"], made["dtype"]) == (np.float32, np.float32)
        kernels = [each for each in read.get_tensor_details() if len(each["shape"]) == 4]
        first, second = (each for each in kernels if each["shape"][0] == 8)
        assert (first["dtype"], second["dtype"]) == (np.float32, np.int8)
        # A scale for each channel.
        assert len(second["quantization_parameters"]["scales"]) == 8

    def test_one_convolution_is_not_left_out(self, faces) -> None:
        from ai_edge_litert.interpreter import Interpreter

        pixels = keras.Input((SIZE, SIZE, 1))
        maps = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(pixels / 255))
        logits = keras.layers.Dense(len(CLASSES), activation="softmax")(maps)
        content = litert.convert_to_litert_int8(keras.Model(pixels, logits), faces.pixels)
        details = Interpreter(model_content=content).get_tensor_details()
        (kernel,) = (each for each in details if [*each["shape"]] == [8, 3, 3, 1])
        assert kernel["dtype"] == np.int8

    def test_what_it_says_was_measured(self, whole, easy_dataset, faces) -> None:
        said = export_manifest.read_export_manifest(whole / "export").exports[-1]
        model = formats.convert_to_float32(TrainedModel.open(whole).load_network())
        expected = formats.predict_on_cpu(model, faces.pixels)
        found = formats.load_litert_predict_fn(whole / "export" / said.path)(faces.pixels)
        assert said.agreement == QuantizationReport(
            dataset={"path": str(easy_dataset), "checksum": "fedcba9876543210"},
            seed=0,
            calibration_split="train",
            calibration_images=115,
            split="validation",
            images=40,
            agreeing_images=np.sum(found.argmax(1) == expected.argmax(1)),
            correct_images=np.sum(found.argmax(1) == faces.labels),
            float_correct_images=np.sum(expected.argmax(1) == faces.labels),
        )
        # It decides clearly: no rounding changes that.
        assert (said.agreement.agreeing_images, said.agreement.correct_images) == (40, 40)
        assert np.abs(found - expected).max() < 0.05
        assert len(np.unique(found.max(axis=1))) == 40
        assert (said.largest_difference, said.tolerance) == (None, None)

    @pytest.fixture
    def with_another_bias(self, monkeypatch) -> Callable[[list[float]], None]:
        """Makes the form in 8-bit integers that of a model with other biases."""
        right = litert.convert_to_litert_int8

        def put(bias: list[float]) -> None:
            def write(model: keras.Model, faces: np.ndarray) -> bytes:
                other = formats.convert_to_float32(model)
                logits = next(each for each in other._flatten_layers() if each.name == "logits")
                logits.bias.assign(bias)
                # No number at all cannot be quantised.
                finite = np.isfinite(bias).all()
                return right(other, faces) if finite else litert.convert_to_litert(other)

            monkeypatch.setattr(litert, "convert_to_litert_int8", write)

        return put

    def test_one_that_recognises_less_is_refused(
        self, whole, easy_dataset, faces, tmp_path, with_another_bias
    ) -> None:
        with_another_bias([0.0, 1000.0, 0.0])
        with pytest.raises(RunError) as raised:
            export(
                whole, tmp_path / "out", ["litert_int8"], load_config(None), dataset=easy_dataset
            )
        message = str(raised.value)
        assert message.startswith(
            f"{whole}: as litert_int8 it classifies {(faces.labels == 1).sum()} of 40 images"
            " correctly, in float32 40; a loss of 1% is allowed; "
        )
        assert "nothing was exported" in message
        assert "--format" in message
        assert not (tmp_path / "out").exists()

    def test_one_that_gives_no_numbers_is_refused(
        self, whole, easy_dataset, tmp_path, with_another_bias
    ) -> None:
        with_another_bias([np.nan, 0.0, 0.0])
        with pytest.raises(RunError) as raised:
            export(
                whole, tmp_path / "out", ["litert_int8"], load_config(None), dataset=easy_dataset
            )
        message = str(raised.value)
        assert message.startswith(f"{whole}: as litert_int8 its probabilities are not finite ")
        assert " for 40 of 40 images; nothing was exported" in message
        assert not (tmp_path / "out").exists()

    def test_another_dataset_than_the_model_s_is_warned_of(
        self, whole, easy_dataset, tmp_path, caplog
    ) -> None:
        other = shutil.copytree(easy_dataset, tmp_path / "other")
        made = StoredDataset.open(other).manifest
        made.model_copy(update={"checksum": "0123456789abcdef"}).write(other)
        warned = []
        for data in (easy_dataset, other):
            caplog.clear()
            export(
                whole,
                tmp_path / f"of {data.name}",
                ["litert_int8"],
                load_config(None),
                dataset=data,
            )
            warned.append([m for m in caplog.messages if "is not the dataset" in m])
        assert warned == [
            [],
            [
                f"{other}: is not the dataset that the model was trained on (its checksum is"
                " 0123456789abcdef, expected fedcba9876543210); the loss of accuracy by litert_int8"
                " is measured on images that may differ from the training images"
            ],
        ]

    def test_a_dataset_that_no_form_needs_is_refused(self, whole, tmp_path) -> None:
        with pytest.raises(RunError) as raised:
            export(whole, tmp_path / "out", ["litert"], load_config(None), dataset="data/a")
        assert str(raised.value) == (
            "data/a: no chosen format needs a dataset; add --format litert_int8, or leave"
            " --dataset out"
        )

    def test_without_a_dataset_it_is_refused(self, whole, tmp_path) -> None:
        assert list_default_formats(None) == ["saved_model", "litert"]
        assert list_default_formats("data") == ["saved_model", "litert", "litert_int8"]
        with pytest.raises(RunError) as raised:
            export(whole, tmp_path / "out", ["litert_int8"], load_config(None))
        assert str(raised.value) == (
            f"{whole}: litert_int8 is calibrated on images; --dataset names the folder of a"
            " preprocess job"
        )

    def test_with_faces_of_other_emotions_it_is_refused(
        self, whole, easy_dataset, tmp_path
    ) -> None:
        run = make_run(tmp_path / "run", make_model())
        info = json.loads((run / RunFile.MODEL_INFO).read_text())
        info["classes"] = ["sad", "angry", "happy"]
        (run / RunFile.MODEL_INFO).write_text(json.dumps(info))
        with pytest.raises(DatasetError, match="its classes are angry, happy, sad"):
            export(run, None, ["litert_int8"], load_config(None), dataset=easy_dataset)

    def test_the_summary_says_what_it_costs(self, whole) -> None:
        made = export_manifest.read_export_manifest(whole / "export")
        lines = format_report(made, whole / "export").splitlines()
        found = made.exports[-1].agreement
        assert [line.split()[0] for line in lines[1:4]] == list(EXPORT_FILES)
        assert (
            f"in 8-bit integers, on 40 images of the validation split: accuracy"
            f" {found.correct_images / 40:.2%}, in float32 {found.float_correct_images / 40:.2%},"
            f" the same emotion for {found.agreeing_images / 40:.2%}"
        ) in lines
        assert (
            "score uses it only with --backend litert: it was tested on 40 images, 500 are needed"
        ) in lines


class TestFolder:
    def test_is_by_default_the_runs_own(self, whole, tmp_path, monkeypatch) -> None:
        assert resolve_export_path(whole, None) == whole / "export"
        assert resolve_export_path(whole, tmp_path / "x") == tmp_path / "x"
        shipped = tmp_path / "pretrained"
        (shipped / "compact").mkdir(parents=True)
        (shipped / "compact" / RunFile.MODEL_INFO).write_text("{}")
        monkeypatch.setattr(trained_model, "PRETRAINED_FOLDER", shipped)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            StorageError,
            match="compact: is a bundled model; choose a folder of your own with --output",
        ):
            resolve_export_path("compact", None)
        assert resolve_export_path("compact", "mine") == Path("mine")

    def test_a_run_that_is_begun_again_may_hold_an_export(self, whole, tmp_path) -> None:
        run = tmp_path / "run"
        (run / "export").mkdir(parents=True)
        with pytest.raises(StorageError, match="not a finished training run"):
            OutputFolder(run, RUN).ensure_writable()
        (run / IN_PROGRESS_FILE).touch()
        OutputFolder(run, RUN).ensure_writable()


class TestReplacedRun:
    def test_its_export_goes_with_it(self, easy_dataset, whole, tmp_path) -> None:
        settings = ["model.name=system_a", "model.options.hidden=4", "training.steps=4"]
        tiny = load_config(None, [*settings, "training.precision=float32"])
        run = tmp_path / "run"
        train(str(easy_dataset), str(run), tiny)
        shutil.copytree(whole / "export", run / "export")
        (run / "export" / "notes.txt").write_text("mine")
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert [path.name for path in (run / "export").iterdir()] == ["notes.txt"]
        (run / "export" / "notes.txt").unlink()
        (run / "export" / EXPORT.commit_file).write_text('{"format": "fer_pipeline export"}')
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert not (run / "export").exists()

    def test_an_export_that_cannot_be_deleted_fails_no_training(
        self, easy_dataset, whole, tmp_path, caplog
    ) -> None:
        settings = ["model.name=system_a", "model.options.hidden=4", "training.steps=4"]
        tiny = load_config(None, [*settings, "training.precision=float32"])
        run = tmp_path / "run"
        train(str(easy_dataset), str(run), tiny)
        shutil.copytree(whole / "export", tmp_path / "theirs")
        (run / "export").symlink_to(tmp_path / "theirs")
        train(str(easy_dataset), str(run), tiny, overwrite=True)
        assert any(
            "an export of the replaced model cannot be deleted" in each for each in caplog.messages
        )
        assert (tmp_path / "theirs" / EXPORT.commit_file).is_file()
        with pytest.raises(RunError, match=r"/export: is an export of a different model than"):
            chosen(run, "litert")


class TestPredictor:
    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    def test_batches_change_nothing(self, whole, faces, batch_size) -> None:
        content = (whole / "export" / "model.tflite").read_bytes()
        expected = formats.predict_on_cpu(TrainedModel.open(whole).load_network(), faces.pixels)
        run = make_litert_predict_fn(content, batch_size)
        for count in (40, 3, 40, 1):
            found = run(faces.pixels[:count])
            assert (found.dtype, found.shape) == (np.float32, (count, 3))
            np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5)

    def test_more_images_than_go_through_at_once(self, whole, faces) -> None:
        content = (whole / "export" / "model.tflite").read_bytes()
        many = np.concatenate([faces.pixels] * 5)
        found = make_litert_predict_fn(content, 1000)(many)
        expected = formats.predict_on_cpu(TrainedModel.open(whole).load_network(), many)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["keras", "litert"])
    def test_flip_is_the_mean_with_the_mirror_image(self, whole, faces, name) -> None:
        path = whole / ("model.keras" if name == "keras" else "export/model.tflite")
        model = TrainedModel.open(whole).load_network()
        mirrored = formats.predict_on_cpu(model, faces.pixels[:, :, ::-1])
        expected = (formats.predict_on_cpu(model, faces.pixels) + mirrored) / 2
        if name == "keras":
            run = make_keras_predict_fn(model, SIZE, 7)
            found = predict_with_flip(run, faces.pixels)
        else:
            settings = PredictorConfig(name, "system_a", SIZE, 7, 1, flip_tta=True)
            found = load_predict_fn(path.read_bytes(), settings)(faces.pixels)
        assert np.abs(mirrored - expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_litert_needs_no_tensorflow(self, whole) -> None:
        code = (
            "import sys, numpy\n"
            "from fer_pipeline.learning.inference.predictor import (\n"
            "    PredictorConfig, load_predict_fn\n"
            ")\n"
            "content = open(sys.argv[1], 'rb').read()\n"
            "run = load_predict_fn(content, PredictorConfig('litert', 'system_a', 16, 8, 1))\n"
            "print(run(numpy.zeros((9, 16, 16), numpy.uint8)).shape)\n"
            "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        )
        command = [sys.executable, "-c", code, str(whole / "export" / "model.int8.tflite")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["(9, 3)", "[]"]

    def test_the_job_needs_no_tensorflow_either(self) -> None:
        code = (
            "import sys\n"
            "import fer_pipeline.pipelines.score\n"
            "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


# --- What scores.


def agreed(
    images: int = 10_000, lost: int = 0, agreeing_images: int | None = None
) -> QuantizationReport:
    """So many answers, of which these many are no longer right, and these many the same."""
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


def form(
    name: str, speed: float | None, agreement: QuantizationReport | None = None
) -> ExportedModel:
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


@pytest.fixture
def exported(whole: Path, tmp_path: Path) -> Callable[..., Path]:
    """A run of which the export says what a test wants."""

    def make(*found: ExportedModel, sha256: str | None = None) -> Path:
        run = tmp_path / "made"
        (run / "export").mkdir(parents=True)
        for name in (RunFile.MODEL, RunFile.MODEL_INFO):
            (run / name).write_bytes((whole / name).read_bytes())
        said = export_manifest.read_export_manifest(whole / "export")
        files = []
        for one in found:
            source = whole / "export" / one.path
            if source.is_file():
                (run / "export" / one.path).write_bytes(source.read_bytes())
                one = one.model_copy(
                    update={"sha256": {one.path: trained_model.compute_sha256(source)}}
                )
            files.append(one)
        update = {
            "exports": files,
            "model": {**said.model, "sha256": sha256 or said.model["sha256"]},
        }
        text = said.model_copy(update=update).model_dump_json()
        (run / "export" / EXPORT.commit_file).write_text(text)
        return run

    return make


def chosen(run: Path, wanted: str) -> backend.InferenceBackend:
    model = TrainedModel.open(run)
    return backend.choose_backend(model, model.read_content(), wanted)


def int8(speed: float | None, **trial: int) -> ExportedModel:
    return form("litert_int8", speed, agreed(**trial))


SLOW, FAST = form("litert", 0.9), form("litert", 1.1)
KERAS, NONE = "model.keras", "no equivalent LiteRT export is faster"
TIMES = "{} times as fast as keras when it was exported"
TRIED = (
    "; on 10,000 images of the validation split it predicted the same emotion for 100.00% and lost"
    " {} points of accuracy"
)


class TestEqual:
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
    def test_by_counts_alone(self, trial, reason) -> None:
        made = int8(1.0, **trial)
        assert (made.mismatch_reason, made.is_equivalent) == (reason, reason is None)
        read = ExportedModel.model_validate_json(made.model_dump_json())
        assert read == made

    @pytest.mark.parametrize(
        ("lost", "says"), [(7, "lost 0.07"), (0, "lost 0.00"), (-7, "gained 0.07")]
    )
    def test_says_what_it_costs(self, lost, says) -> None:
        assert agreed(lost=lost).describe().endswith(f"and {says} points of accuracy")

    def test_a_form_in_float32_always_is(self) -> None:
        assert (FAST.is_equivalent, FAST.mismatch_reason) == (True, None)


class TestChoice:
    @pytest.mark.parametrize(
        ("found", "wanted", "expected", "reason"),
        [
            ([FAST, int8(3.0)], "keras", KERAS, "as configured"),
            ([FAST, int8(3.0)], "litert", "litert_int8", "as configured" + TRIED.format("0.00")),
            (
                [FAST, int8(3.0, lost=70)],
                "litert",
                "litert_int8",
                "as configured" + TRIED.format("0.70"),
            ),
            ([SLOW], "litert", "litert", "as configured"),
            ([form("litert", None)], "litert", "litert", "as configured"),
            (
                [FAST, int8(3.0)],
                "auto",
                "litert_int8",
                TIMES.format("3.00") + TRIED.format("0.00"),
            ),
            (
                [FAST, int8(123.456, lost=20)],
                "auto",
                "litert_int8",
                TIMES.format("123.46") + TRIED.format("0.20"),
            ),
            # Faster, but not as good.
            ([FAST, int8(3.0, lost=21)], "auto", "litert", TIMES.format("1.10")),
            (
                [SLOW, int8(3.0, images=100)],
                "auto",
                KERAS,
                f"{NONE}; litert_int8: it was tested on 100 images, 500 are needed",
            ),
            # As good, but not faster.
            ([SLOW, int8(1.0)], "auto", KERAS, NONE),
            ([FAST, int8(1.05)], "auto", "litert", TIMES.format("1.10")),
            # Of before speeds were measured.
            ([form("litert", None)], "auto", KERAS, NONE),
            ([form("saved_model", 9.0)], "keras", KERAS, "as configured"),
        ],
    )
    def test_by_what_the_export_says(
        self, exported, caplog, found, wanted, expected, reason
    ) -> None:
        run = exported(*found)
        caplog.set_level("INFO", logger=backend.__name__)
        made = chosen(run, wanted)
        path = (
            run / "model.keras"
            if expected == "model.keras"
            else run / "export" / EXPORT_FILES[expected]
        )
        assert (made.format, made.name) == (
            expected,
            "keras" if expected == "model.keras" else "litert",
        )
        assert (made.content, made.sha256) == (
            path.read_bytes(),
            trained_model.compute_sha256(path),
        )
        assert caplog.messages[-1] == f"using {made.name} ({made.format}): {reason}"
        warned = [one.message for one in caplog.records if one.levelname == "WARNING"]
        assert warned == (
            ["litert_int8 is not equivalent to the model: it loses 0.70 points of accuracy"]
            if "lost 0.70" in reason
            else []
        )
        assert made.to_dict() == {
            "name": made.name,
            "format": expected,
            "reason": reason,
            "sha256": made.sha256,
        }

    @pytest.mark.parametrize(
        ("state", "says"),
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
    def test_without_a_sound_export(self, exported, state, says) -> None:
        run = exported(
            form("saved_model", 2.0) if state == "no form" else FAST,
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
            chosen(run, "litert")
        message = str(raised.value)
        assert message.startswith(says.format(run=run))
        assert "\n" not in message
        # Left to itself, it goes on without, and says why.
        made = chosen(run, "auto")
        assert (made.format, made.reason) == ("model.keras", message)
        assert dataclasses.replace(chosen(run, "keras"), reason=message) == made

    @pytest.mark.parametrize("state", ["none", "another model", "no form", "damaged"])
    def test_a_model_of_the_package_cannot_be_exported_again(
        self, exported, monkeypatch, state
    ) -> None:
        run = exported(
            form("saved_model", 2.0) if state == "no form" else FAST,
            sha256="0" * 64 if state == "another model" else None,
        )
        monkeypatch.setattr(trained_model, "PRETRAINED_FOLDER", run.parent)
        if state == "none":
            (run / "export" / "export.json").unlink()
        if state == "damaged":
            (run / "export" / "model.tflite").write_bytes(b"")
        with pytest.raises(RunError) as raised:
            chosen(run, "litert")
        assert str(raised.value).endswith(
            "; the installation is incomplete: reinstall the package, or choose --backend keras"
        )
        assert "--model" not in str(raised.value)
