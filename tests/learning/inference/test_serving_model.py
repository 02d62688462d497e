import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.trainer import enable_determinism
from tests.helpers import finished_run

SIZE, CLASSES = 16, ("angry", "happy", "sad")
NORMALIZATIONS = {
    "centered": Normalization.centered(),
    "unit": Normalization.zero_to_one(),
    # The sums of FER2013's 28,709 training images, near enough.
    "standard": Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000),
    "standard of other sums": Normalization.standard(1_000_003, 77_777_777, 9_999_999_999),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (37, SIZE, SIZE, 1), np.uint8)
# Each of the 256 values, as an image.
ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(1, SIZE, SIZE, 1)


def make_network():
    enable_determinism(1)
    return registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})


def make_run(folder, normalization=NORMALIZATIONS["centered"], **changes):
    network = make_network()
    model = serving_model.build_serving_model(network, SIZE, normalization)
    known = {
        "normalization": normalization,
        "network": "system_a",
        "options": {"hidden": 8},
        "best_accuracy": 1 / 3,
        "versions": {"keras": keras.__version__},
    }
    info = finished_run.save(folder, model, CLASSES, **{**known, **changes})
    return network, info


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(params=NORMALIZATIONS)
def normalization(request):
    return NORMALIZATIONS[request.param]


class TestModel:
    def test_loads_with_plain_keras_and_takes_raw_pixels(self, tmp_path, normalization):
        network, _ = make_run(tmp_path, normalization)
        model = keras.models.load_model(tmp_path / "model.keras")
        assert model.input_shape == (None, SIZE, SIZE, 1)
        assert model.output_shape == (None, len(CLASSES))
        logits = network(normalization.lookup_table()[PIXELS]).numpy().astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True)
        assert len(np.unique(expected.round(3), axis=0)) > 30
        ways = {
            "float32": model(PIXELS.astype(np.float32)).numpy(),
            "float64": model(PIXELS.astype(np.float64)).numpy(),
            "uint8": model(PIXELS).numpy(),
            "int64 tensor": model(tf.constant(PIXELS, tf.int64)).numpy(),
            "predict": model.predict(PIXELS, batch_size=10, verbose=0),
            "predict floats": model.predict(PIXELS.astype(np.float32), verbose=0),
        }
        for way, found in ways.items():
            assert found.dtype == np.float32, way
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=way)

    def test_normalises_to_the_bits_of_the_table(self, tmp_path, normalization):
        make_run(tmp_path, normalization)
        model = keras.models.load_model(tmp_path / "model.keras")
        layer = model.get_layer("normalization")
        table = normalization.lookup_table().view(np.uint32)
        part = keras.Model(model.inputs[0], layer.output)
        traced = tf.function(part, input_signature=[tf.TensorSpec((None, SIZE, SIZE, 1))])
        values = ALL_VALUES.astype(np.float32)
        ways = {
            "eager": layer(values).numpy(),
            "eager uint8": part(ALL_VALUES).numpy(),
            "in a graph": traced(values).numpy(),
            "predict": part.predict(ALL_VALUES, verbose=0),
        }
        for way, found in ways.items():
            np.testing.assert_array_equal(found.ravel().view(np.uint32), table, err_msg=way)

    def test_shares_the_weights_of_the_network(self):
        network = make_network()
        model = serving_model.build_serving_model(network, SIZE, NORMALIZATIONS["centered"])
        assert [v is w for v, w in zip(model.variables, network.variables, strict=True)] == [
            True
        ] * len(network.variables)

    def test_any_number_of_images(self, tmp_path):
        make_run(tmp_path)
        model = TrainedModel.open(tmp_path).load_network()
        all_at_once = model(PIXELS).numpy()
        for count in (1, 2, 36):
            np.testing.assert_allclose(
                model(PIXELS[:count]).numpy(), all_at_once[:count], atol=1e-6
            )

    def test_probabilities_are_float32_whatever_the_network_computes_in(self):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            network = make_network()
        finally:
            keras.config.set_dtype_policy(before)
        model = serving_model.build_serving_model(network, SIZE, NORMALIZATIONS["standard"])
        found = model(PIXELS).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


class TestRead:
    def test_gives_back_what_was_written(self, tmp_path, normalization):
        network, info = make_run(tmp_path, normalization)
        assert trained_model.read_model_info(tmp_path) == info
        assert trained_model.read_model_info(tmp_path).normalization == normalization
        model, trained = TrainedModel.open(tmp_path).load_network(), TrainedModel.open(tmp_path)
        assert trained.info == info
        for one, other in zip(model.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        content = (tmp_path / "model.keras").read_bytes()
        assert trained.read_content() == content
        assert info.sha256 == hashlib.sha256(content).hexdigest()

    def test_a_run_without_validation(self, tmp_path):
        make_run(tmp_path, best_accuracy=None)
        assert trained_model.read_model_info(tmp_path).best_accuracy is None


def load_network(folder):
    return TrainedModel.open(folder).load_network()


def read_content(folder):
    return TrainedModel.open(folder).read_content()


def refused(folder, read=load_network):
    with pytest.raises(RunError) as error:
        read(folder)
    message = str(error.value)
    assert "\n" not in message
    return message


ADVICE = "create one with the train job, or name compact or mirrored"


class TestRefusals:
    def test_no_folder(self, tmp_path):
        folder = tmp_path / "none"
        assert refused(folder) == f"{folder}: no such folder (no model.json); {ADVICE}"

    def test_a_folder_without_a_run(self, tmp_path):
        assert refused(tmp_path) == (
            f"{tmp_path}: holds no trained model (no model.json); {ADVICE}"
        )

    def test_a_run_that_has_not_finished(self, run):
        (run / "model.json").unlink()
        (run / ".unfinished").write_text("")
        assert refused(run) == f"{run}: its training has not finished (no model.json); {ADVICE}"

    def test_a_file_in_place_of_the_folder(self, run):
        message = refused(run / "model.keras")
        assert message.startswith(f"{run / 'model.keras'}: ")
        assert "with the train job" in message

    @pytest.mark.parametrize("damage", ["one byte", "cut", "empty", "another"])
    def test_a_damaged_model(self, run, damage):
        path = run / "model.keras"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(
            {
                "one byte": content,
                "cut": content[:-1],
                "empty": b"",
                "another": b"no model",
            }[damage]
        )
        for read in (load_network, read_content):
            assert refused(run, read) == (
                f"{path}: is not the file that model.json describes; train again"
            )

    def test_no_model(self, run):
        (run / "model.keras").unlink()
        assert refused(run) == f"{run / 'model.keras'}: no such file"

    def test_a_newer_format(self, run):
        path = run / "model.json"
        said = json.loads(path.read_text())
        # Whatever else the newer format says.
        path.write_text(json.dumps({"format_version": 3, "format": said["format"], "new": 1}))
        assert refused(run) == (
            f"{run}: has format 3, this version of fer_pipeline reads format 2; update fer_pipeline"
        )

    def test_an_older_format(self, run):
        path = run / "model.json"
        older = {**json.loads(path.read_text()), "format_version": 1, "best_trial": 0}
        path.write_text(json.dumps(older))
        message = refused(run)
        assert message.startswith(f"{run}: has format 1, ")
        assert message.endswith(f"; convert it with scripts/migrate-run {run}")

    @pytest.mark.parametrize("key", ["classes", "size", "normalization", "sha256"])
    def test_a_key_that_is_missing(self, run, key):
        path = run / "model.json"
        said = json.loads(path.read_text())
        del said[key]
        path.write_text(json.dumps(said))
        assert refused(run) == f"{path}: is damaged: {key}: Field required"

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "no JSON", '{"format": "another"}'])
    def test_no_info(self, run, text):
        (run / "model.json").write_text(text)
        assert refused(run).startswith(f"{run / 'model.json'}: is damaged: ")
