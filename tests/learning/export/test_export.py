import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from fer_pipeline.config import load_config
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import FerError, RunError, StorageError
from fer_pipeline.io.output_kinds import EXPORT_FILES, IN_PROGRESS_FILE
from fer_pipeline.learning.export import formats, litert
from fer_pipeline.learning.export.formats import (
    EXPORT_FORMATS,
    compute_largest_difference,
    convert_to_float32,
    write_weights_and_architecture,
)
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.learning.networks import registry
from fer_pipeline.pipelines.export import export, format_report
from tests.helpers import finished_run

SIZE = 16
CLASSES = ("angry", "happy", "sad")
NORMALIZATION = Normalization.standard(1_000_003, 77_777_777, 9_999_999_999)
_RANDOM = np.random.default_rng(7)


def make_noise_image() -> npt.NDArray[np.uint8]:
    """Return noise of random brightness and contrast; no pixel is 255."""
    low, high = sorted(_RANDOM.choice(256, 2, False).tolist())
    return _RANDOM.integers(low, high, (SIZE, SIZE)).astype(np.uint8)


PIXELS = np.stack([make_noise_image() for _ in range(37)])
IMAGES = PIXELS[..., np.newaxis].astype(np.float32)
POLICIES = ("float32", "mixed_bfloat16")
ALL_FILES = {"saved_model", "model.tflite", "export.json", "config.yaml"}
# The format in 8-bit integers needs a dataset; inference/test_backend.py tests it.
FLOAT_FORMATS = {form: path for form, path in EXPORT_FILES.items() if form != "litert_int8"}

# The speeds of the export formats are fixed, not measured.
pytestmark = pytest.mark.usefixtures("fixed_speeds")


@contextmanager
def set_precision(policy: str) -> Iterator[None]:
    """Build layers with this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_network() -> keras.Model:
    """Return a small network with branches, BatchNormalization and Dropout."""
    images = keras.Input((SIZE, SIZE, 1))
    left = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    left = keras.layers.ReLU()(keras.layers.BatchNormalization()(left))
    right = keras.layers.SeparableConv2D(8, 3, padding="same")(left)
    features = keras.layers.Dropout(0.5)(keras.layers.Add()([left, right]))
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(images, logits, name="normalized")


def make_model(policy: str = "float32") -> keras.Model:
    """Return a serving model whose weights and moving statistics all differ from each other."""
    keras.utils.set_random_seed(3)
    with set_precision(policy):
        model = serving_model.build_serving_model(build_network(), SIZE, NORMALIZATION)
    random = np.random.default_rng(5)
    weights = model.get_weights()
    model.set_weights([w * random.uniform(0.5, 1.5, w.shape) + 0.1 for w in weights])
    return model


def make_run(folder: Path, model: keras.Model, precision: str = "float32") -> ModelInfo:
    """Write a finished run of the model."""
    fields = {"network": "normalized", "precision": precision}
    return finished_run.save(folder, model, CLASSES, normalization=NORMALIZATION, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, make_model())
    return folder


@pytest.fixture(scope="module")
def export_folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model in all formats that need no dataset, in a folder that export created."""
    folder = tmp_path_factory.mktemp("whole") / "a" / "b"
    export(run, folder, list(FLOAT_FORMATS), load_config(None))
    return folder


def predict(model: keras.Model) -> npt.NDArray[np.float32]:
    """Return the probabilities of all images."""
    return model(IMAGES, training=False).numpy()


def list_bits(array: npt.NDArray[np.float32]) -> list[int]:
    """Return the bits of each number as an integer."""
    return array.view(np.uint32).ravel().tolist()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class TestWeightsAndArchitecture:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_model_read_back_predicts_the_same_bits(self, tmp_path, policy):
        model = make_model(policy)
        write_weights_and_architecture(model, tmp_path / "run")
        read = keras.models.model_from_json((tmp_path / "run" / "architecture.json").read_text())
        read.load_weights(tmp_path / "run" / "model.weights.h5")
        assert len(np.unique(predict(model).round(3), axis=0)) > 20
        assert list_bits(predict(read)) == list_bits(predict(model))

    def test_the_weights_of_each_bundled_network_survive(self, tmp_path):
        for name in registry.list_network_names():
            model = serving_model.build_serving_model(
                registry.build_network(name, 48, 7, {}), 48, NORMALIZATION
            )
            write_weights_and_architecture(model, tmp_path)
            text = (tmp_path / "architecture.json").read_text()
            read = keras.models.model_from_json(text)
            read.load_weights(tmp_path / "model.weights.h5")
            weights, expected = read.get_weights(), model.get_weights()
            assert [w.tobytes() for w in weights] == [w.tobytes() for w in expected], name

    def test_older_files_are_replaced_and_no_others_appear(self, tmp_path):
        model = make_model()
        write_weights_and_architecture(model, tmp_path)
        first = read_files(tmp_path)
        model.get_layer("normalized").layers[-1].bias.assign([1, 2, 3])
        write_weights_and_architecture(model, tmp_path)
        second = read_files(tmp_path)
        assert set(second) == {"architecture.json", "model.weights.h5"}
        assert second["architecture.json"] == first["architecture.json"]
        assert second["model.weights.h5"] != first["model.weights.h5"]

    def test_a_path_below_a_file_is_an_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"architecture\.json: cannot be written"):
            write_weights_and_architecture(make_model(), tmp_path / "file")


class TestConvertToFloat32:
    def test_all_layers_compute_in_float32(self):
        converted = convert_to_float32(make_model("mixed_bfloat16"))
        layers = list(converted._flatten_layers())
        assert len(layers) > 10
        assert {layer.compute_dtype for layer in layers} == {"float32"}

    def test_a_float32_model_is_copied_without_a_change(self):
        model = make_model()
        converted = convert_to_float32(model)
        assert list_bits(predict(converted)) == list_bits(predict(model))
        assert converted is not model

    def test_the_weights_stay_and_the_rounding_disappears(self):
        rounded, exact = make_model("mixed_bfloat16"), make_model()
        converted = convert_to_float32(rounded)
        assert list_bits(predict(converted)) == list_bits(predict(exact))
        assert 1e-4 < compute_largest_difference(predict(rounded), predict(exact)) < 0.1
        # The model itself is left as it was.
        assert rounded.get_layer("normalized").layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("format_name", EXPORT_FORMATS)
class TestFormats:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_the_written_file_predicts_the_probabilities_of_the_model(
        self, tmp_path, format_name, policy
    ):
        model = convert_to_float32(make_model(policy))
        expected = predict(model)
        EXPORT_FORMATS[format_name].write(model, tmp_path / "it")
        for count in (37, 1, 2):
            probabilities = EXPORT_FORMATS[format_name].load(tmp_path / "it")(PIXELS[:count])
            assert probabilities.dtype == np.float32
            assert probabilities.shape == (count, 3)
            np.testing.assert_allclose(probabilities, expected[:count], rtol=0, atol=1e-5)

    def test_a_wrong_model_differs_by_more_than_the_tolerance(self, tmp_path, format_name):
        """The tolerance is for rounding: it must not hide a difference of one grey level."""
        model = make_model()
        EXPORT_FORMATS[format_name].write(model, tmp_path / "it")
        probabilities = EXPORT_FORMATS[format_name].load(tmp_path / "it")(PIXELS + np.uint8(1))
        assert (
            compute_largest_difference(probabilities, predict(model))
            > EXPORT_FORMATS[format_name].tolerance
        )

    def test_each_format_has_a_path_in_the_folder(self, format_name):
        assert set(FLOAT_FORMATS) == set(EXPORT_FORMATS)
        paths = {"saved_model": "saved_model", "litert": "model.tflite"}
        assert EXPORT_FILES[format_name] == paths[format_name]


class TestSavedModel:
    def test_tensorflow_alone_serves_it_with_one_signature(self, export_folder, tmp_path):
        np.save(tmp_path / "images.npy", IMAGES)
        code = (
            "import sys, numpy, tensorflow as tf\n"
            "loaded = tf.saved_model.load(sys.argv[1])\n"
            "print(sorted(loaded.signatures))\n"
            "serve = loaded.signatures['serving_default']\n"
            "print(serve.structured_input_signature, serve.structured_outputs)\n"
            "found = serve(pixels=tf.constant(numpy.load('images.npy')))['probabilities']\n"
            "numpy.save('found.npy', found.numpy())\n"
            "assert not [name for name in sys.modules if name.startswith('fer_pipeline')]\n"
        )
        command = [sys.executable, "-c", code, str(export_folder / "saved_model")]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        assert process.stdout.splitlines() == [
            "['serving_default']",
            "((), {'pixels': TensorSpec(shape=(None, 16, 16, 1), dtype=tf.float32, name='pixels')})"
            " {'probabilities': TensorSpec(shape=(None, 3), dtype=tf.float32,"
            " name='probabilities')}",
        ]
        expected = predict(make_model())
        np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-5)

    def test_each_weight_is_stored_once(self, export_folder):
        stored = tf.train.list_variables(
            str(export_folder / "saved_model" / "variables" / "variables")
        )
        shapes = sorted(tuple(shape) for name, shape in stored if shape)
        assert shapes == sorted(weight.shape for weight in make_model().get_weights())


class TestLiteRT:
    @pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
    def test_the_signature_has_named_inputs_and_outputs(self, export_folder):
        interpreter = tf.lite.Interpreter(str(export_folder / "model.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": ["probabilities"]}
        }
        (pixels,) = interpreter.get_input_details()
        assert (pixels["dtype"], pixels["shape_signature"].tolist()) == (
            np.float32,
            [-1, 16, 16, 1],
        )

    def test_an_operation_that_litert_lacks_is_an_error(self, tmp_path):
        images = keras.Input((SIZE, SIZE, 1))
        values = keras.ops.linalg.svd(images[..., 0], compute_uv=False)
        with pytest.raises(RunError) as error:
            EXPORT_FORMATS["litert"].write(keras.Model(images, values, name="own"), tmp_path / "it")
        assert str(error.value).startswith("own: cannot be converted to LiteRT")
        assert "leave litert out" in str(error.value)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "it").exists()
        with pytest.raises(RunError) as error:
            litert.convert_to_litert_int8(keras.Model(images, values, name="own"), PIXELS)
        assert str(error.value).startswith("own: cannot be converted to LiteRT")
        assert "leave litert_int8 out" in str(error.value)


class TestReferenceImages:
    @pytest.mark.parametrize("size", [8, 28, 48])
    def test_images_are_reproducible_and_all_different(self, size):
        images = formats.make_reference_images(size)
        assert images.dtype == np.uint8
        assert images.shape == (64, size, size)
        assert images.tobytes() == formats.make_reference_images(size).tobytes()
        assert (int(images.min()), int(images.max())) == (0, 255)
        assert len({image.tobytes() for image in images}) == 64

    @pytest.mark.parametrize(
        ("probabilities", "expected"),
        [([[0.25, 0.75]], 0.0), ([[0.5, 0.5]], 0.25), ([[0.25, math.nan]], math.nan)],
    )
    def test_the_difference_is_the_largest_of_all_probabilities(self, probabilities, expected):
        reference = np.array([[0.25, 0.75]], np.float32)
        difference = compute_largest_difference(reference, np.array(probabilities, np.float32))
        assert difference == pytest.approx(expected, nan_ok=True)

    def test_the_difference_of_other_shapes_is_an_error(self):
        reference = np.zeros((2, 3), np.float32)
        with pytest.raises(ValueError, match=r"expected .* \(2, 3\), got \(1, 3\)"):
            compute_largest_difference(reference, reference[:1])


class TestExport:
    def test_the_manifest_describes_the_written_files(self, run, export_folder):
        document = json.loads((export_folder / "export.json").read_text())
        exports, versions = document.pop("exports"), document.pop("versions")
        assert document == {
            "format": "fer_pipeline export",
            "format_version": 2,
            "model": {
                "path": str(run.resolve()),
                "sha256": trained_model.compute_sha256(run / "model.keras"),
                "dataset_checksum": "fedcba9876543210",
            },
            "classes": list(CLASSES),
            "size": SIZE,
            "normalization": dataclasses.asdict(NORMALIZATION),
            "enhancement": {"denoise": 0.0, "equalize": False, "local_contrast": False},
            "signature": {
                "name": "serving_default",
                "input": {"name": "pixels", "dtype": "float32", "shape": [None, SIZE, SIZE, 1]},
                "output": {"name": "probabilities", "dtype": "float32", "shape": [None, 3]},
            },
            "precision": "float32",
            "rounding": 0.0,
            "images": 64,
        }
        assert {"fer_pipeline", "python", "keras"} <= set(versions)
        assert [(e["format"], e["path"]) for e in exports] == list(FLOAT_FORMATS.items())
        files = read_files(export_folder)
        for entry in exports:
            assert 0 <= entry["largest_difference"] <= entry["tolerance"] <= 1e-3
            assert entry["agreement"] is None
            assert entry["relative_speed"] == {"saved_model": 1.25, "litert": 1.5}[entry["format"]]
            own_files = {name: f for name, f in files.items() if name.startswith(entry["path"])}
            assert entry["sha256"] == {
                n: hashlib.sha256(f).hexdigest() for n, f in own_files.items()
            }
            assert entry["bytes"] == sum(map(len, own_files.values()))
        listed_files = {name for entry in exports for name in entry["sha256"]}
        assert set(files) == {*listed_files, "export.json", "config.yaml"}
        assert {path.name for path in export_folder.iterdir()} == ALL_FILES

    def test_the_files_predict_the_probabilities_of_the_run(self, run, export_folder):
        expected = predict(TrainedModel.open(run).load_network())
        for format_name, path in FLOAT_FORMATS.items():
            probabilities = EXPORT_FORMATS[format_name].load(export_folder / path)(PIXELS)
            np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)

    def test_a_bfloat16_model_is_exported_in_float32_and_its_rounding_reported(self, tmp_path):
        # The model decides, and not the precision in model.json.
        make_run(tmp_path / "run", make_model("mixed_bfloat16"), "float32")
        manifest = export(
            tmp_path / "run", tmp_path / "out", list(FLOAT_FORMATS), load_config(None)
        )
        assert manifest.precision == "mixed_bfloat16"
        assert 1e-4 < manifest.rounding < 0.1
        exact = predict(make_model())
        for format_name, path in FLOAT_FORMATS.items():
            probabilities = EXPORT_FORMATS[format_name].load(tmp_path / "out" / path)(PIXELS)
            np.testing.assert_allclose(probabilities, exact, rtol=0, atol=1e-5)
        assert (
            "the run itself computes in mixed_bfloat16: its probabilities differ from those in"
            f" float32 by up to {manifest.rounding:.1e}"
        ) in format_report(manifest, tmp_path / "out").splitlines()

    def test_a_float32_model_trained_in_bfloat16_has_no_rounding(self, tmp_path):
        make_run(
            tmp_path / "run", convert_to_float32(make_model("mixed_bfloat16")), "mixed_bfloat16"
        )
        manifest = export(tmp_path / "run", tmp_path / "out", ["saved_model"], load_config(None))
        assert (manifest.precision, manifest.rounding) == ("float32", 0.0)
        assert "the run itself computes in" not in format_report(manifest, tmp_path / "out")

    def test_a_format_that_is_named_twice_is_written_once(self, run, tmp_path):
        manifest = export(run, tmp_path, ["litert", "litert"], load_config(None))
        assert [entry.format for entry in manifest.exports] == ["litert"]
        assert {path.name for path in tmp_path.iterdir()} == ALL_FILES - {"saved_model"}

    def test_the_report_shows_size_difference_and_speed(self, run, tmp_path):
        manifest = export(run, tmp_path / "out", list(FLOAT_FORMATS), load_config(None))
        lines = format_report(manifest, tmp_path / "out").splitlines()
        assert lines[0].split() == ["bytes", "difference", "allowed", "speed"]
        assert [line.split() for line in lines[1:3]] == [
            [
                entry.format,
                str(tmp_path / "out" / entry.path),
                f"{entry.bytes:,}",
                f"{entry.largest_difference:.1e}",
                f"{entry.tolerance:g}",
                f"{entry.relative_speed:.2f}",
            ]
            for entry in manifest.exports
        ]
        assert lines[3:] == [
            "(difference: largest difference of a probability from the run's model in float32, on"
            " 64 images)",
            "(speed: images per second on one core, relative to the run's model in Keras)",
            "",
            f"export {tmp_path / 'out' / 'export.json'}",
        ]


def catch_refusal(kind: type[FerError], run: Path, out: Path, *, overwrite: bool = False) -> str:
    """Return the message of an export's error, and check that the folder did not change."""
    before = read_files(out) if out.is_dir() else None
    with pytest.raises(kind) as caught:
        export(run, out, list(FLOAT_FORMATS), load_config(None), overwrite=overwrite)
    assert (read_files(out) if out.is_dir() else None) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize("format_name", EXPORT_FORMATS)
    def test_a_format_with_other_probabilities_is_refused(
        self, run, tmp_path, monkeypatch, format_name
    ):
        def write_other_model(model: keras.Model, path: Path) -> None:
            model.get_layer("normalized").layers[-1].bias.assign_add([0.02, 0, 0])
            try:
                export_format.write(model, path)
            finally:
                model.get_layer("normalized").layers[-1].bias.assign_sub([0.02, 0, 0])

        export_format = EXPORT_FORMATS[format_name]
        monkeypatch.setitem(
            EXPORT_FORMATS, format_name, dataclasses.replace(export_format, write=write_other_model)
        )
        message = catch_refusal(RunError, run, tmp_path / "out")
        assert message.startswith(f"{run}: as {format_name} its probabilities differ by up to 0.00")
        assert "nothing was exported" in message
        assert "--format" in message

    def test_a_model_that_predicts_nan_is_refused(self, tmp_path):
        model = make_model()
        model.get_layer("normalized").layers[-1].bias.assign([math.nan, 0, 0])
        make_run(tmp_path / "run", model)
        message = catch_refusal(RunError, tmp_path / "run", tmp_path / "out")
        assert "its probabilities differ by up to nan" in message

    def test_a_missing_run_is_refused(self, tmp_path):
        assert "no such folder" in catch_refusal(RunError, tmp_path / "none", tmp_path / "out")

    def test_an_existing_export_needs_overwrite(self, run, export_folder):
        message = catch_refusal(StorageError, run, export_folder)
        assert message.startswith(f"{export_folder}: holds an export already")
        assert "--overwrite" in message

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize(
        "foreign_file", ["thesis.tex", "saved_model/saved_model.pb", "model.tflite"]
    )
    def test_a_folder_with_foreign_files_is_refused(self, run, tmp_path, foreign_file, overwrite):
        (tmp_path / foreign_file).parent.mkdir(exist_ok=True)
        (tmp_path / foreign_file).write_text("three years of work")
        message = catch_refusal(StorageError, run, tmp_path, overwrite=overwrite)
        assert f"not an export (it holds {foreign_file.partition('/')[0]})" in message

    def test_the_folder_of_the_run_is_refused(self, run):
        assert "not an export" in catch_refusal(StorageError, run, run, overwrite=True)


class TestOverwrite:
    def test_all_older_files_are_replaced(self, run, tmp_path):
        export(run, tmp_path, list(FLOAT_FORMATS), load_config(None))
        (tmp_path / "saved_model" / "assets" / "older.txt").write_text("")
        (tmp_path / ".export-a1b2c3_d.json").write_text("{")
        config = load_config(None, ["seed=5"])
        export(run, tmp_path, ["saved_model"], config, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == ALL_FILES - {"model.tflite"}
        assert not (tmp_path / "saved_model" / "assets" / "older.txt").exists()
        assert load_config(tmp_path / "config.yaml") == config

    def test_the_old_export_stays_if_the_new_one_is_refused(self, export_folder, tmp_path):
        model = make_model()
        model.get_layer("normalized").layers[-1].bias.assign([math.nan, 0, 0])
        make_run(tmp_path / "run", model)
        catch_refusal(RunError, tmp_path / "run", export_folder, overwrite=True)

    def test_a_failed_write_leaves_an_incomplete_export_that_can_be_replaced(self, run, tmp_path):
        export(run, tmp_path, list(FLOAT_FORMATS), load_config(None))
        (tmp_path / "config.yaml").unlink()
        (tmp_path / "config.yaml").mkdir()  # a file cannot replace it
        with pytest.raises(StorageError, match=r"config\.yaml: cannot be written"):
            export(run, tmp_path, list(FLOAT_FORMATS), load_config(None), overwrite=True)
        assert not (tmp_path / "export.json").exists()
        (tmp_path / "config.yaml").rmdir()
        # An incomplete export is replaced without --overwrite, including its folders.
        assert (tmp_path / "saved_model").is_dir()
        assert (tmp_path / IN_PROGRESS_FILE).exists()
        export(run, tmp_path, ["litert"], load_config(None))
        assert {path.name for path in tmp_path.iterdir()} == ALL_FILES - {"saved_model"}
