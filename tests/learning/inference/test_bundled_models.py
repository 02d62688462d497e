"""The bundled models agree with their cards, reports and exports."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config import load_config
from fer_pipeline.data import emotions
from fer_pipeline.io.output_kinds import DEFAULT_MODEL, EXPORT_FOLDER
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.inference import export_manifest, trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel

ROOT = Path(__file__).resolve().parents[3]
# The default model has both formats; compact, its teacher, has one.
EXPORTED_FORMATS = {"compact": {"litert_int8"}, DEFAULT_MODEL: {"litert", "litert_int8"}}
# The data is not distributed; only the checkouts of the maintainers have it.
FER2013 = ROOT.parent / "shared" / "data" / "fer2013.parquet"


@pytest.fixture(
    scope="module", params=sorted(path.name for path in trained_model.PRETRAINED_FOLDER.iterdir())
)
def folder(request):
    return trained_model.PRETRAINED_FOLDER / request.param


@pytest.fixture(scope="module")
def network_and_info(folder):
    """The Keras model and its model.json."""
    model = TrainedModel.open(folder)
    return model.load_network(), model.info


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "metrics.json").read_text())


def list_files(folder: Path) -> set[str]:
    """Return the relative paths of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestBundledModel:
    def test_its_name_is_its_path_unless_such_a_folder_exists(self, folder, tmp_path, monkeypatch):
        assert trained_model.resolve_model_path(folder.name) == folder
        # An existing folder of the same name has priority.
        monkeypatch.chdir(tmp_path)
        (tmp_path / folder.name).mkdir()
        assert trained_model.resolve_model_path(folder.name).resolve() == tmp_path / folder.name
        assert trained_model.resolve_model_path("no_such") == Path("no_such")

    def test_its_size_and_cost_are_limited(self, folder, network_and_info):
        model, model_info = network_and_info
        assert model_info.parameters == model.count_params() <= 1_000_000
        multiply_adds = summarize_network(model).multiply_adds
        assert multiply_adds is not None
        assert multiply_adds <= 100_000_000
        assert sum(file.stat().st_size for file in folder.rglob("*")) < 12e6

    def test_it_computes_in_float32_with_kernels_that_fit_float16(self, network_and_info):
        model, _ = network_and_info
        (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        assert {layer.compute_dtype for layer in network.layers} == {"float32"}
        for weight in model.trainable_weights:
            values = np.asarray(weight)
            if values.ndim > 1:
                np.testing.assert_array_equal(values, values.astype(np.float16))

    def test_it_was_trained_with_the_published_configuration(self, folder, network_and_info):
        _, model_info = network_and_info
        trained = load_config(folder / "config.yaml").to_dict()
        published = load_config(ROOT / "conf" / f"{folder.name}.yaml").to_dict()
        for config in (trained, published):
            # The last run trained on all rows; the first one validated on a tenth of them.
            assert config["split"].pop("validation") in (0.0, 0.1)
            config["model"].pop("temperature")
            config.pop("inference")
            config.pop("tracking")
        assert trained == published
        assert model_info.best_accuracy is None
        assert model_info.temperature != 1

    def test_the_wheel_contains_all_its_files(self, folder, tmp_path):
        command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        installed = tmp_path / folder.relative_to(ROOT)
        assert list_files(installed) == list_files(folder) != set()

    def test_the_report_is_about_this_model(self, network_and_info, report):
        assert report["model"]["sha256"] == network_and_info[1].sha256
        assert "path" not in {*report["model"], *report["dataset"]}

    def test_the_export_is_made_of_this_model(self, folder, network_and_info):
        manifest = export_manifest.read_export_manifest(folder / EXPORT_FOLDER)
        assert manifest.model["sha256"] == network_and_info[1].sha256
        assert {export.format for export in manifest.exports} == EXPORTED_FORMATS[folder.name]

    def test_the_card_shows_the_accuracies_of_the_report(self, folder, report):
        card = (folder / "README.md").read_text()
        for subset in ("all", "without_copies"):
            scores = report["copies_in_training"][subset]
            assert f"{scores['accuracy']:.1%}".replace("%", " %") in card
        for scores in report["classes"].values():
            assert f"{scores['accuracy']:.1%}".replace("%", " %") in card


def test_mirrored_is_the_default_model():
    path = trained_model.resolve_model_path(None)
    assert path == trained_model.PRETRAINED_FOLDER / "mirrored"
    assert (path / "model.keras").is_file()


@pytest.mark.skipif(not FER2013.exists(), reason="needs FER2013")
@pytest.mark.parametrize(
    "folder", [DEFAULT_MODEL, pytest.param("compact", marks=pytest.mark.slow)], indirect=True
)
def test_the_accuracy_on_public_test_is_that_of_the_report(network_and_info, report):
    table = pq.read_table(FER2013)
    table = table.filter(pc.equal(table["usage"].cast("string"), "PublicTest"))
    model, model_info = network_and_info
    pixels = np.frombuffer(b"".join(table["pixels"].to_pylist()), np.uint8)
    predictions = model.predict(
        pixels.reshape(-1, model_info.size, model_info.size, 1), 256, 0
    ).argmax(axis=1)
    truth = np.array([emotions.FER2013[code] for code in table["emotion"].to_pylist()])
    is_correct = np.array(model_info.classes)[predictions] == truth
    assert (len(table), int(is_correct.sum())) == (
        report["rows"],
        sum(scores["true_positives"] for scores in report["classes"].values()),
    )
