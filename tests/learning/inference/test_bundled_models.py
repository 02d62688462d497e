"""The models that come with the package are what their cards say."""

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
# What is taken where no model is named has both; its teacher is there to teach and to compare.
FORMS = {"compact": {"litert_int8"}, DEFAULT_MODEL: {"litert", "litert_int8"}}
# Beside a checkout for development; nobody else has it there.
FER2013 = ROOT.parent / "shared" / "data" / "fer2013.parquet"


@pytest.fixture(
    scope="module", params=sorted(path.name for path in trained_model.PRETRAINED_FOLDER.iterdir())
)
def folder(request):
    return trained_model.PRETRAINED_FOLDER / request.param


@pytest.fixture(scope="module")
def shipped(folder):
    trained = TrainedModel.open(folder)
    return trained.load_network(), trained.info


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "metrics.json").read_text())


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestModel:
    def test_is_found_by_its_name(self, folder, tmp_path, monkeypatch):
        assert trained_model.resolve_model_path(folder.name) == folder
        # A folder that is there goes before.
        monkeypatch.chdir(tmp_path)
        (tmp_path / folder.name).mkdir()
        assert trained_model.resolve_model_path(folder.name).resolve() == tmp_path / folder.name
        assert trained_model.resolve_model_path("no_such") == Path("no_such")

    def test_costs_no_more_than_it_may(self, folder, shipped):
        model, info = shipped
        assert info.parameters == model.count_params() <= 1_000_000
        assert summarize_network(model).multiply_adds <= 100_000_000
        assert sum(file.stat().st_size for file in folder.rglob("*")) < 12e6

    def test_computes_in_float32_with_kernels_that_float16_can_hold(self, shipped):
        model, _ = shipped
        (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        assert {layer.compute_dtype for layer in network.layers} == {"float32"}
        for weight in model.trainable_weights:
            values = np.asarray(weight)
            if values.ndim > 1:
                np.testing.assert_array_equal(values, values.astype(np.float16))

    def test_was_trained_with_the_configuration_that_is_shipped(self, folder, shipped):
        _, info = shipped
        trained = load_config(folder / "config.yaml").to_dict()
        written = load_config(ROOT / "conf" / f"{folder.name}.yaml").to_dict()
        for chosen in (trained, written):
            # All rows of the last run are for training; the first one chose on a tenth of them.
            assert chosen["split"].pop("validation") in (0.0, 0.1)
            chosen["model"].pop("temperature")
            chosen.pop("inference")
            chosen.pop("tracking")
        assert trained == written
        assert info.best_accuracy is None
        assert info.temperature != 1

    def test_is_installed_with_the_package(self, folder, tmp_path):
        command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        installed = tmp_path / folder.relative_to(ROOT)
        assert files(installed) == files(folder) != set()

    def test_the_report_is_that_of_this_model(self, shipped, report):
        assert report["model"]["sha256"] == shipped[1].sha256
        assert "path" not in {*report["model"], *report["dataset"]}

    def test_the_export_is_that_of_this_model(self, folder, shipped):
        made = export_manifest.read_export_manifest(folder / EXPORT_FOLDER)
        assert made.model["sha256"] == shipped[1].sha256
        assert {one.format for one in made.exports} == FORMS[folder.name]

    def test_the_card_says_what_the_report_says(self, folder, report):
        card = (folder / "README.md").read_text()
        for where in ("all", "without_copies"):
            part = report["copies_in_training"][where]
            assert f"{part['accuracy']:.1%}".replace("%", " %") in card
        for one in report["classes"].values():
            assert f"{one['accuracy']:.1%}".replace("%", " %") in card


def test_one_is_taken_where_none_is_named():
    assert trained_model.resolve_model_path(None) == trained_model.PRETRAINED_FOLDER / DEFAULT_MODEL


@pytest.mark.skipif(not FER2013.exists(), reason="needs FER2013")
def test_the_accuracy_on_public_test_is_the_one_that_is_claimed(shipped, report):
    table = pq.read_table(FER2013)
    table = table.filter(pc.equal(table["usage"].cast("string"), "PublicTest"))
    model, info = shipped
    pixels = np.frombuffer(b"".join(table["pixels"].to_pylist()), np.uint8)
    guesses = model.predict(pixels.reshape(-1, info.size, info.size, 1), 256, 0).argmax(axis=1)
    truth = np.array([emotions.FER2013[code] for code in table["emotion"].to_pylist()])
    right = np.array(info.classes)[guesses] == truth
    assert (len(table), int(right.sum())) == (
        report["rows"],
        sum(one["true_positives"] for one in report["classes"].values()),
    )
