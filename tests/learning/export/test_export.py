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

SIZE, CLASSES = 16, ("angry", "happy", "sad")
NORMALIZATION = Normalization.standard(1_000_003, 77_777_777, 9_999_999_999)
_RANDOM = np.random.default_rng(7)
# Of any brightness and contrast, and none of them white.
PIXELS = np.stack(
    [_RANDOM.integers(*sorted(_RANDOM.choice(256, 2, False)), (SIZE, SIZE)) for _ in range(37)]
).astype(np.uint8)
IMAGES = PIXELS[..., np.newaxis].astype(np.float32)
POLICIES = ("float32", "mixed_bfloat16")
EVERYTHING = {"saved_model", "model.tflite", "export.json", "config.yaml"}
# Without a dataset; the form in 8-bit integers has tests of its own.
FLOATS = {form: path for form, path in EXPORT_FILES.items() if form != "litert_int8"}

# The speeds of the export formats are fixed, not measured.
pytestmark = pytest.mark.usefixtures("fixed_speeds")


@contextmanager
def computing_in(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def normalized_network() -> keras.Model:
    """With what the larger ones have: branches, BatchNormalization, Dropout."""
    images = keras.Input((SIZE, SIZE, 1))
    one = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    one = keras.layers.ReLU()(keras.layers.BatchNormalization()(one))
    other = keras.layers.SeparableConv2D(8, 3, padding="same")(one)
    both = keras.layers.Dropout(0.5)(keras.layers.Add()([one, other]))
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(both))
    return keras.Model(images, logits, name="normalized")


def make_model(policy: str = "float32") -> keras.Model:
    """A model of which every weight, and every moving statistic, is one of its own."""
    keras.utils.set_random_seed(3)
    with computing_in(policy):
        model = serving_model.build_serving_model(normalized_network(), SIZE, NORMALIZATION)
    random = np.random.default_rng(5)
    weights = model.get_weights()
    model.set_weights([w * random.uniform(0.5, 1.5, w.shape) + 0.1 for w in weights])
    return model


def make_run(folder: Path, model: keras.Model, precision: str = "float32") -> ModelInfo:
    known = {"network": "normalized", "precision": precision}
    return finished_run.save(folder, model, CLASSES, normalization=NORMALIZATION, **known)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder, make_model())
    return folder


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model, exported in every form into a folder that was not there."""
    folder = tmp_path_factory.mktemp("whole") / "a" / "b"
    export(run, folder, list(FLOATS), load_config(None))
    return folder


def probabilities(model: keras.Model) -> np.ndarray:
    return model(IMAGES, training=False).numpy()


def bits(array: np.ndarray) -> list[int]:
    return array.view(np.uint32).ravel().tolist()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class TestWeights:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_and_json_give_the_same_bits(self, tmp_path, policy):
        model = make_model(policy)
        write_weights_and_architecture(model, tmp_path / "run")
        read = keras.models.model_from_json((tmp_path / "run" / "architecture.json").read_text())
        read.load_weights(tmp_path / "run" / "model.weights.h5")
        assert len(np.unique(probabilities(model).round(3), axis=0)) > 20
        assert bits(probabilities(read)) == bits(probabilities(model))

    def test_every_network_of_the_package(self, tmp_path):
        for name in registry.list_network_names():
            model = serving_model.build_serving_model(
                registry.build_network(name, 48, 7, {}), 48, NORMALIZATION
            )
            write_weights_and_architecture(model, tmp_path)
            text = (tmp_path / "architecture.json").read_text()
            read = keras.models.model_from_json(text)
            read.load_weights(tmp_path / "model.weights.h5")
            found, expected = read.get_weights(), model.get_weights()
            assert [w.tobytes() for w in found] == [w.tobytes() for w in expected], name

    def test_replace_older_ones_and_leave_nothing_else(self, tmp_path):
        model = make_model()
        write_weights_and_architecture(model, tmp_path)
        first = contents(tmp_path)
        model.get_layer("normalized").layers[-1].bias.assign([1, 2, 3])
        write_weights_and_architecture(model, tmp_path)
        second = contents(tmp_path)
        assert set(second) == {"architecture.json", "model.weights.h5"}
        assert second["architecture.json"] == first["architecture.json"]
        assert second["model.weights.h5"] != first["model.weights.h5"]

    def test_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"architecture\.json: cannot be written"):
            write_weights_and_architecture(make_model(), tmp_path / "file")


class TestInFloat32:
    def test_all_layers_compute_in_it(self):
        made = convert_to_float32(make_model("mixed_bfloat16"))
        layers = list(made._flatten_layers())
        assert len(layers) > 10
        assert {layer.compute_dtype for layer in layers} == {"float32"}

    def test_a_model_in_float32_stays_what_it_is(self):
        model = make_model()
        made = convert_to_float32(model)
        assert bits(probabilities(made)) == bits(probabilities(model))
        assert made is not model

    def test_the_weights_are_the_same_and_the_rounding_is_gone(self):
        rounded, exact = make_model("mixed_bfloat16"), make_model()
        made = convert_to_float32(rounded)
        assert bits(probabilities(made)) == bits(probabilities(exact))
        assert 1e-4 < compute_largest_difference(probabilities(rounded), probabilities(exact)) < 0.1
        # The model itself is left as it was.
        assert rounded.get_layer("normalized").layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("form", EXPORT_FORMATS)
class TestForms:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_gives_the_probabilities_of_the_model(self, tmp_path, form, policy):
        model = convert_to_float32(make_model(policy))
        expected = probabilities(model)
        EXPORT_FORMATS[form].write(model, tmp_path / "it")
        for count in (37, 1, 2):
            found = EXPORT_FORMATS[form].load(tmp_path / "it")(PIXELS[:count])
            assert (found.dtype, found.shape) == (np.float32, (count, 3))
            np.testing.assert_allclose(found, expected[:count], rtol=0, atol=1e-5)

    def test_a_wrong_model_is_further_off_than_the_tolerance(self, tmp_path, form):
        """The tolerance is for rounding: not even a single grey level may be lost in it."""
        model = make_model()
        EXPORT_FORMATS[form].write(model, tmp_path / "it")
        found = EXPORT_FORMATS[form].load(tmp_path / "it")(PIXELS + 1)
        assert (
            compute_largest_difference(found, probabilities(model)) > EXPORT_FORMATS[form].tolerance
        )

    def test_every_form_has_a_path(self, form):
        assert set(FLOATS) == set(EXPORT_FORMATS)
        assert form in EXPORT_FILES


class TestSavedModel:
    def test_tensorflow_alone_serves_it_by_its_one_signature(self, whole, tmp_path):
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
        command = [sys.executable, "-c", code, str(whole / "saved_model")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "['serving_default']",
            "((), {'pixels': TensorSpec(shape=(None, 16, 16, 1), dtype=tf.float32, name='pixels')})"
            " {'probabilities': TensorSpec(shape=(None, 3), dtype=tf.float32,"
            " name='probabilities')}",
        ]
        expected = probabilities(make_model())
        np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-5)

    def test_holds_each_weight_once(self, whole):
        stored = tf.train.list_variables(str(whole / "saved_model" / "variables" / "variables"))
        shapes = sorted(tuple(shape) for name, shape in stored if shape)
        assert shapes == sorted(weight.shape for weight in make_model().get_weights())


class TestLiteRT:
    @pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
    def test_is_read_by_its_names(self, whole):
        interpreter = tf.lite.Interpreter(str(whole / "model.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {"inputs": ["pixels"], "outputs": ["probabilities"]}
        }
        (given,) = interpreter.get_input_details()
        assert (given["dtype"], given["shape_signature"].tolist()) == (np.float32, [-1, 16, 16, 1])

    def test_that_has_no_such_operation(self, tmp_path):
        images = keras.Input((SIZE, SIZE, 1))
        values = keras.ops.linalg.svd(images[..., 0], compute_uv=False)
        with pytest.raises(RunError) as error:
            EXPORT_FORMATS["litert"].write(keras.Model(images, values, name="own"), tmp_path / "it")
        assert str(error.value).startswith("own: cannot be converted to LiteRT, leave litert out: ")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "it").exists()
        with pytest.raises(RunError) as error:
            litert.convert_to_litert_int8(keras.Model(images, values, name="own"), PIXELS)
        assert str(error.value).startswith(
            "own: cannot be converted to LiteRT, leave litert_int8 out: "
        )


class TestProbe:
    @pytest.mark.parametrize("size", [8, 28, 48])
    def test_is_the_same_every_time_and_all_of_it_is_different(self, size):
        images = formats.make_reference_images(size)
        assert (images.dtype, images.shape) == (np.uint8, (64, size, size))
        assert images.tobytes() == formats.make_reference_images(size).tobytes()
        assert (images.min(), images.max()) == (0, 255)
        assert len({image.tobytes() for image in images}) == 64

    @pytest.mark.parametrize(
        ("other", "expected"),
        [([[0.25, 0.75]], 0.0), ([[0.5, 0.5]], 0.25), ([[0.25, math.nan]], math.nan)],
    )
    def test_the_difference_is_the_largest(self, other, expected):
        one = np.array([[0.25, 0.75]], np.float32)
        found = compute_largest_difference(one, np.array(other, np.float32))
        assert found == pytest.approx(expected, nan_ok=True)

    def test_another_shape_is_no_small_difference(self):
        one = np.zeros((2, 3), np.float32)
        with pytest.raises(ValueError, match=r"expected .* \(2, 3\), got \(1, 3\)"):
            compute_largest_difference(one, one[:1])


class TestExport:
    def test_writes_what_it_says(self, run, whole):
        said = json.loads((whole / "export.json").read_text())
        exports, versions = said.pop("exports"), said.pop("versions")
        assert said == {
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
        assert [(e["format"], e["path"]) for e in exports] == list(FLOATS.items())
        files = contents(whole)
        for one in exports:
            assert 0 <= one["largest_difference"] <= one["tolerance"] <= 1e-3
            assert one["agreement"] is None
            assert one["relative_speed"] == {"saved_model": 1.25, "litert": 1.5}[one["format"]]
            there = {name: f for name, f in files.items() if name.startswith(one["path"])}
            assert one["sha256"] == {n: hashlib.sha256(f).hexdigest() for n, f in there.items()}
            assert one["bytes"] == sum(map(len, there.values()))
        named = {name for one in exports for name in one["sha256"]}
        assert set(files) == {*named, "export.json", "config.yaml"}
        assert {path.name for path in whole.iterdir()} == EVERYTHING

    def test_what_it_wrote_gives_the_probabilities_of_the_run(self, run, whole):
        expected = probabilities(TrainedModel.open(run).load_network())
        for form, path in FLOATS.items():
            found = EXPORT_FORMATS[form].load(whole / path)(PIXELS)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

    def test_a_run_in_bfloat16(self, tmp_path):
        # What the run says that it was trained in decides nothing.
        make_run(tmp_path / "run", make_model("mixed_bfloat16"), "float32")
        made = export(tmp_path / "run", tmp_path / "out", list(FLOATS), load_config(None))
        assert made.precision == "mixed_bfloat16"
        assert 1e-4 < made.rounding < 0.1
        exact = probabilities(make_model())
        for form, path in FLOATS.items():
            found = EXPORT_FORMATS[form].load(tmp_path / "out" / path)(PIXELS)
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)
        assert (
            "the run itself computes in mixed_bfloat16: its probabilities differ from those in"
            f" float32 by up to {made.rounding:.1e}"
        ) in format_report(made, tmp_path / "out").splitlines()

    def test_a_run_trained_in_bfloat16_that_computes_in_float32(self, tmp_path):
        make_run(
            tmp_path / "run", convert_to_float32(make_model("mixed_bfloat16")), "mixed_bfloat16"
        )
        made = export(tmp_path / "run", tmp_path / "out", ["saved_model"], load_config(None))
        assert (made.precision, made.rounding) == ("float32", 0.0)
        assert "the run itself computes in" not in format_report(made, tmp_path / "out")

    def test_one_form_alone_and_named_twice(self, run, tmp_path):
        made = export(run, tmp_path, ["litert", "litert"], load_config(None))
        assert [one.format for one in made.exports] == ["litert"]
        assert {path.name for path in tmp_path.iterdir()} == EVERYTHING - {"saved_model"}

    def test_the_result_for_the_terminal(self, run, tmp_path):
        made = export(run, tmp_path / "out", list(FLOATS), load_config(None))
        lines = format_report(made, tmp_path / "out").splitlines()
        assert lines[0].split() == ["bytes", "difference", "allowed", "speed"]
        assert [line.split() for line in lines[1:3]] == [
            [
                one.format,
                str(tmp_path / "out" / one.path),
                f"{one.bytes:,}",
                f"{one.largest_difference:.1e}",
                f"{one.tolerance:g}",
                f"{one.relative_speed:.2f}",
            ]
            for one in made.exports
        ]
        assert lines[3:] == [
            "(difference: largest difference of a probability from the run's model in float32, on"
            " 64 images)",
            "(speed: images per second on one core, relative to the run's model in Keras)",
            "",
            f"export {tmp_path / 'out' / 'export.json'}",
        ]


def refused(kind: type[FerError], run: Path, out: Path, *, overwrite: bool = False) -> str:
    before = contents(out) if out.is_dir() else None
    with pytest.raises(kind) as caught:
        export(run, out, list(FLOATS), load_config(None), overwrite=overwrite)
    assert (contents(out) if out.is_dir() else None) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestRefusals:
    @pytest.mark.parametrize("form", EXPORT_FORMATS)
    def test_a_form_with_other_probabilities(self, run, tmp_path, monkeypatch, form):
        def write_another(model: keras.Model, path: Path) -> None:
            model.get_layer("normalized").layers[-1].bias.assign_add([0.02, 0, 0])
            try:
                right.write(model, path)
            finally:
                model.get_layer("normalized").layers[-1].bias.assign_sub([0.02, 0, 0])

        right = EXPORT_FORMATS[form]
        monkeypatch.setitem(EXPORT_FORMATS, form, dataclasses.replace(right, write=write_another))
        message = refused(RunError, run, tmp_path / "out")
        assert message.startswith(f"{run}: as {form} its probabilities differ by up to 0.00")
        assert message.endswith("; nothing was exported; --format can leave this format out")

    def test_a_model_that_gives_no_probabilities(self, tmp_path):
        model = make_model()
        model.get_layer("normalized").layers[-1].bias.assign([math.nan, 0, 0])
        make_run(tmp_path / "run", model)
        message = refused(RunError, tmp_path / "run", tmp_path / "out")
        assert "its probabilities differ by up to nan" in message

    def test_no_run(self, tmp_path):
        assert "no such folder" in refused(RunError, tmp_path / "none", tmp_path / "out")

    def test_an_export_that_is_there(self, run, whole):
        assert refused(StorageError, run, whole) == (
            f"{whole}: holds an export already; --overwrite replaces it"
        )

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("theirs", ["thesis.tex", "saved_model/saved_model.pb", "model.tflite"])
    def test_a_folder_that_is_someone_elses(self, run, tmp_path, theirs, overwrite):
        (tmp_path / theirs).parent.mkdir(exist_ok=True)
        (tmp_path / theirs).write_text("three years of work")
        message = refused(StorageError, run, tmp_path, overwrite=overwrite)
        assert f"not an export (it holds {theirs.partition('/')[0]})" in message

    def test_the_run_itself_is_no_place_for_it(self, run):
        assert "not an export" in refused(StorageError, run, run, overwrite=True)


class TestOverwrite:
    def test_replaces_all_of_it(self, run, tmp_path):
        export(run, tmp_path, list(FLOATS), load_config(None))
        (tmp_path / "saved_model" / "assets" / "older.txt").write_text("")
        (tmp_path / ".export-a1b2c3_d.json").write_text("{")
        chosen = load_config(None, ["seed=5"])
        export(run, tmp_path, ["saved_model"], chosen, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == EVERYTHING - {"model.tflite"}
        assert not (tmp_path / "saved_model" / "assets" / "older.txt").exists()
        assert load_config(tmp_path / "config.yaml") == chosen

    def test_that_fails_before_it_writes_leaves_the_old_one_whole(self, whole, tmp_path):
        model = make_model()
        model.get_layer("normalized").layers[-1].bias.assign([math.nan, 0, 0])
        make_run(tmp_path / "run", model)
        refused(RunError, tmp_path / "run", whole, overwrite=True)

    def test_that_fails_while_it_writes_leaves_no_mixture(self, run, tmp_path):
        export(run, tmp_path, list(FLOATS), load_config(None))
        (tmp_path / "config.yaml").unlink()
        (tmp_path / "config.yaml").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"config\.yaml: cannot be written"):
            export(run, tmp_path, list(FLOATS), load_config(None), overwrite=True)
        assert not (tmp_path / "export.json").exists()
        (tmp_path / "config.yaml").rmdir()
        # What is torn is replaced without being asked, the folder too.
        assert (tmp_path / "saved_model").is_dir()
        assert (tmp_path / IN_PROGRESS_FILE).exists()
        export(run, tmp_path, ["litert"], load_config(None))
        assert {path.name for path in tmp_path.iterdir()} == EVERYTHING - {"saved_model"}
