import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.trainer import enable_determinism
from tests.helpers import finished_run

SIZE = 16
CLASSES = ("angry", "happy", "sad")
NORMALIZATIONS = {
    "centered": Normalization.centered(),
    "unit": Normalization.zero_to_one(),
    # Approximately the sums of FER2013's 28,709 training images.
    "standard": Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000),
    "standard of other sums": Normalization.standard(1_000_003, 77_777_777, 9_999_999_999),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (37, SIZE, SIZE, 1), np.uint8)
# One image with each of the 256 pixel values.
ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(1, SIZE, SIZE, 1)


def make_network() -> keras.Model:
    """Return a small network with reproducible weights."""
    enable_determinism(1)
    return registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})


def make_run(
    folder: Path, normalization: Normalization = NORMALIZATIONS["centered"], **changes: Any
) -> tuple[keras.Model, ModelInfo]:
    """Write a finished run, and return its network and its model.json with these changes."""
    network = make_network()
    model = serving_model.build_serving_model(network, SIZE, normalization)
    fields = {
        "normalization": normalization,
        "network": "system_a",
        "options": {"hidden": 8},
        "best_accuracy": 1 / 3,
        "versions": {"keras": keras.__version__},
    }
    return network, finished_run.save(folder, model, CLASSES, **{**fields, **changes})


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(params=NORMALIZATIONS)
def normalization(request):
    return NORMALIZATIONS[request.param]


class TestServingModel:
    def test_plain_keras_loads_it_and_it_predicts_from_raw_pixels(self, tmp_path, normalization):
        network, _ = make_run(tmp_path, normalization)
        model = keras.models.load_model(tmp_path / "model.keras")
        assert model.input_shape == (None, SIZE, SIZE, 1)
        assert model.output_shape == (None, len(CLASSES))
        logits = network(normalization.lookup_table()[PIXELS]).numpy().astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True)
        assert len(np.unique(expected.round(3), axis=0)) > 30
        probabilities_by_input = {
            "float32": model(PIXELS.astype(np.float32)).numpy(),
            "float64": model(PIXELS.astype(np.float64)).numpy(),
            "uint8": model(PIXELS).numpy(),
            "int64 tensor": model(tf.constant(PIXELS, tf.int64)).numpy(),
            "predict": model.predict(PIXELS, batch_size=10, verbose=0),
            "predict floats": model.predict(PIXELS.astype(np.float32), verbose=0),
        }
        for name, probabilities in probabilities_by_input.items():
            assert probabilities.dtype == np.float32, name
            np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6, err_msg=name)

    def test_normalized_pixels_have_the_bits_of_the_lookup_table(self, tmp_path, normalization):
        make_run(tmp_path, normalization)
        model = keras.models.load_model(tmp_path / "model.keras")
        layer = model.get_layer("normalization")
        table = normalization.lookup_table().view(np.uint32)
        part = keras.Model(model.inputs[0], layer.output)
        traced = tf.function(part, input_signature=[tf.TensorSpec((None, SIZE, SIZE, 1))])
        values = ALL_VALUES.astype(np.float32)
        outputs_by_call = {
            "eager": layer(values).numpy(),
            "eager uint8": part(ALL_VALUES).numpy(),
            "in a graph": traced(values).numpy(),
            "predict": part.predict(ALL_VALUES, verbose=0),
        }
        for name, output in outputs_by_call.items():
            np.testing.assert_array_equal(output.ravel().view(np.uint32), table, err_msg=name)

    def test_it_shares_the_weights_of_the_network(self):
        network = make_network()
        model = serving_model.build_serving_model(network, SIZE, NORMALIZATIONS["centered"])
        assert [v is w for v, w in zip(model.variables, network.variables, strict=True)] == [
            True
        ] * len(network.variables)

    def test_predictions_do_not_depend_on_the_number_of_images(self, tmp_path):
        make_run(tmp_path)
        model = TrainedModel.open(tmp_path).load_network()
        all_at_once = model(PIXELS).numpy()
        for count in (1, 2, 36):
            np.testing.assert_allclose(
                model(PIXELS[:count]).numpy(), all_at_once[:count], atol=1e-6
            )

    def test_probabilities_of_a_bfloat16_network_are_float32(self):
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            network = make_network()
        finally:
            keras.config.set_dtype_policy(before)
        model = serving_model.build_serving_model(network, SIZE, NORMALIZATIONS["standard"])
        probabilities = model(PIXELS).numpy()
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


class TestReadRun:
    def test_model_and_info_are_read_as_they_were_written(self, tmp_path, normalization):
        network, model_info = make_run(tmp_path, normalization)
        assert trained_model.read_model_info(tmp_path) == model_info
        assert trained_model.read_model_info(tmp_path).normalization == normalization
        model, trained = TrainedModel.open(tmp_path).load_network(), TrainedModel.open(tmp_path)
        assert trained.info == model_info
        for loaded_weights, weights in zip(model.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(loaded_weights, weights)
        content = (tmp_path / "model.keras").read_bytes()
        assert trained.read_content() == content
        assert model_info.sha256 == hashlib.sha256(content).hexdigest()

    def test_a_run_without_validation_has_no_best_accuracy(self, tmp_path):
        make_run(tmp_path, best_accuracy=None)
        assert trained_model.read_model_info(tmp_path).best_accuracy is None


def load_network(folder: Path) -> keras.Model:
    """Load the Keras model of a run."""
    return TrainedModel.open(folder).load_network()


def read_content(folder: Path) -> bytes:
    """Read the model file of a run."""
    return TrainedModel.open(folder).read_content()


def catch_refusal(folder: Path, read: Callable[[Path], object] = load_network) -> str:
    """Return the message of the error that reading a run raises; it must be one line."""
    with pytest.raises(RunError) as error:
        read(folder)
    message = str(error.value)
    assert "\n" not in message
    return message


def assert_advises_to_train_or_name_a_bundled_model(message: str) -> None:
    """Assert that a message names the missing file, the train job and both bundled models."""
    for words in ("model.json", "train job", "compact", "mirrored"):
        assert words in message


class TestRefusals:
    def test_a_missing_folder(self, tmp_path):
        folder = tmp_path / "none"
        message = catch_refusal(folder)
        assert message.startswith(f"{folder}: no such folder")
        assert_advises_to_train_or_name_a_bundled_model(message)

    def test_a_folder_without_a_run(self, tmp_path):
        message = catch_refusal(tmp_path)
        assert message.startswith(f"{tmp_path}: holds no trained model")
        assert_advises_to_train_or_name_a_bundled_model(message)

    def test_an_unfinished_run(self, run):
        (run / "model.json").unlink()
        (run / ".unfinished").write_text("")
        message = catch_refusal(run)
        assert message.startswith(f"{run}: its training has not finished")
        assert "--resume" in message
        assert_advises_to_train_or_name_a_bundled_model(message)

    def test_a_file_instead_of_a_folder(self, run):
        message = catch_refusal(run / "model.keras")
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
            message = catch_refusal(run, read)
            assert message.startswith(f"{path}: is not the file that model.json describes")
            assert "train again" in message

    def test_a_missing_model_file(self, run):
        (run / "model.keras").unlink()
        assert catch_refusal(run).startswith(f"{run / 'model.keras'}: no such file")

    def test_a_newer_format(self, run):
        path = run / "model.json"
        model_info = json.loads(path.read_text())
        # The other keys may be missing or new.
        path.write_text(json.dumps({"format_version": 3, "format": model_info["format"], "new": 1}))
        message = catch_refusal(run)
        assert message.startswith(f"{run}: has format 3")
        assert "reads format 2" in message
        assert "update fer_pipeline" in message

    def test_an_older_format(self, run):
        path = run / "model.json"
        older = {**json.loads(path.read_text()), "format_version": 1, "best_trial": 0}
        path.write_text(json.dumps(older))
        message = catch_refusal(run)
        assert message.startswith(f"{run}: has format 1")
        assert f"scripts/migrate-run {run}" in message

    @pytest.mark.parametrize("key", ["classes", "size", "normalization", "sha256"])
    def test_a_missing_key(self, run, key):
        path = run / "model.json"
        model_info = json.loads(path.read_text())
        del model_info[key]
        path.write_text(json.dumps(model_info))
        message = catch_refusal(run)
        assert message.startswith(f"{path}: is damaged")
        assert f"{key}: Field required" in message

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "no JSON", '{"format": "another"}'])
    def test_a_damaged_model_info(self, run, text):
        (run / "model.json").write_text(text)
        assert catch_refusal(run).startswith(f"{run / 'model.json'}: is damaged: ")
