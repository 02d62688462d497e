import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, FerError, RunError, StorageError
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.training import precision
from fer_pipeline.metrics import significance
from fer_pipeline.pipelines.compare import OUTPUT_FILES, compare, format_report
from tests.helpers import finished_run
from tests.helpers.evaluation import evaluate

CLASSES = ("angry", "happy", "sad")
SIZE = 16
TRAINED, TESTED = 20, 110
CHECKSUM = "fedcba9876543210"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "compare.py"

# A model takes a face for the class whose brightness is nearest: that of the middle of its third.
LEVELS = NORMALIZATION.lookup_table()[[42, 128, 213]].astype(np.float64)


def make_run(folder, size=SIZE, bias=0.0, classes=CLASSES, enhancement=None, left=False):
    """Writes a finished run of a model that goes by brightness; a bias makes it worse.

    Perhaps by that of the left half alone.
    """
    network = keras.Sequential(
        [
            keras.Input((size, size, 1)),
            *([keras.layers.Cropping2D(((0, 0), (0, size // 2)))] if left else []),
            keras.layers.Conv2D(1, 1, kernel_initializer="ones", name="same"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    network.layers[-1].set_weights([6 * LEVELS[None, :], bias * np.eye(3)[0] - 3 * LEVELS**2])
    known = {"dataset_checksum": CHECKSUM, "enhancement": enhancement or Enhancement()}
    model = serving_model.build_serving_model(network, size, NORMALIZATION)
    finished_run.save(folder, model, classes, network="brightness", **known)
    return folder


def chosen(*settings: str) -> Config:
    return load_config(None, ["inference.batch_size=30", "seed=3", *settings])


@pytest.fixture(scope="module", autouse=True)
def _short_turns():
    """Speed is measured, but not well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MIN_MEASUREMENT_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def splits(rows):
    """Mostly as bright as their class. The first rows of test are the train split's, by hash."""
    random = np.random.default_rng(5)

    def made(count):
        labels, others = random.integers(3, size=(2, count)).astype(np.int32)
        shown = np.where(random.random(count) < 0.7, labels, others)
        faces = 85 * shown[:, None, None] + random.integers(0, 85, (count, SIZE, SIZE))
        return dataclasses.replace(rows, pixels=faces.astype(np.uint8), labels=labels)

    return {"train": made(TRAINED), "test": made(TESTED)}


@pytest.fixture(scope="module")
def dataset(splits, write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"), splits)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A good one, a worse one, and one that takes smaller images."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "good" / "run"),
        make_run(folder / "worse" / "run", bias=4.0),
        make_run(folder / "small", size=8, bias=1.0),
    ]


@pytest.fixture(scope="module")
def compared(runs, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "a" / "b"
    return compare(runs, dataset, Split.TEST, out, chosen()), out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestOutputs:
    def test_a_model_is_evaluated_as_evaluate_does(self, runs, dataset, compared, tmp_path):
        found, _ = compared
        entry = found.models[2]
        alone = evaluate(runs[2], dataset, Split.TEST, tmp_path, chosen())
        assert entry.metrics == alone.metrics
        assert entry.without_overlap == alone.overlap.without_overlap
        assert [one.without_overlap.image_count for one in found.models] == 3 * [TESTED - TRAINED]
        assert found.overlap_count == TRAINED

    def test_the_pairs_are_of_the_same_images(self, runs, splits, compared):
        found, _ = compared
        test = splits["test"]
        right = []
        for run in runs:
            trained = TrainedModel.open(run)
            model, info = trained.load_network(), trained.info
            pixels = np.stack([resize(image, info.size) for image in test.pixels])
            right.append(np.argmax(model.predict_on_batch(pixels[..., None]), 1) == test.labels)
        assert found.pairs == significance.compare_classifiers(np.array(right))
        assert found.pairs[0].only_first > found.pairs[0].only_second > 0

    def test_names_and_costs(self, compared):
        found, _ = compared
        assert [entry.name for entry in found.models] == ["good/run", "worse/run", "small"]
        assert [entry.size for entry in found.models] == [SIZE, SIZE, 8]
        # A convolution of 1x1 with one filter, and 3 units over its mean.
        costs = [(one.cost.parameters, one.cost.multiply_adds) for one in found.models]
        assert costs == [(8, 16 * 16 + 3), (8, 16 * 16 + 3), (8, 8 * 8 + 3)]
        assert all(entry.cost.images_per_second > 0 for entry in found.models)
        settings = found.settings
        assert (settings.batch_size, settings.flip_tta) == (30, False)

    def test_the_folder(self, runs, dataset, compared):
        found, out = compared
        assert set(contents(out)) == set(OUTPUT_FILES)
        assert (out / "accuracy_cost.png").read_bytes().startswith(b"\x89PNG")
        told = json.loads((out / "comparison.json").read_text())
        assert told.pop("versions")["fer_pipeline"]
        assert told == {
            "format": "fer_pipeline comparison",
            "dataset": {"path": str(dataset.resolve()), "checksum": CHECKSUM, "size": SIZE},
            "split": "test",
            **json.loads(json.dumps(found.to_dict())),
        }
        assert load_config(out / "config.yaml", []) == chosen()

    def test_the_result_for_the_terminal(self, compared):
        found, out = compared
        cost_part, quality_part, pair_part, wrote = format_report(found, out).split("\n\n")
        assert [part.split()[0] for part in (cost_part, quality_part, pair_part)] == [
            *("model", "model", "first"),
        ]
        assert wrote.splitlines() == [f"wrote {out / name}" for name in OUTPUT_FILES]

    def test_flips_are_averaged(self, runs, dataset, tmp_path):
        left = make_run(tmp_path / "left", left=True)
        settings = chosen("inference.flip_tta=true")
        found = compare([runs[0], left], dataset, Split.TEST, tmp_path / "out", settings)
        alone = evaluate(left, dataset, Split.TEST, tmp_path / "alone", settings)
        plain = evaluate(left, dataset, Split.TEST, tmp_path / "plain", chosen())
        assert found.models[1].metrics == alone.metrics != plain.metrics
        assert found.settings.flip_tta
        assert "needs two forward passes" in format_report(found, tmp_path / "out")
        assert json.loads((tmp_path / "out" / "comparison.json").read_text())["flip_tta"] is True

    def test_batches_of_fewer_images_than_are_asked_for(self, runs, dataset, tmp_path):
        settings = chosen("inference.batch_size=1000")
        found = compare(runs[:2], dataset, Split.TEST, tmp_path, settings)
        assert 0 < found.settings.batch_size <= TESTED

    def test_the_precision_is_that_of_the_model(self, runs, dataset, compared, tmp_path):
        with precision.use_precision("mixed_bfloat16"):
            other = make_run(tmp_path / "other")
        found = compare([runs[0], other], dataset, Split.TEST, tmp_path / "out", chosen())
        assert [entry.precision for entry in found.models] == ["float32", "mixed_bfloat16"]

    def test_on_the_train_split_there_are_no_copies(self, runs, dataset, tmp_path):
        found = compare(runs[:2], dataset, Split.TRAIN, tmp_path, chosen())
        assert (found.overlap_count, [entry.without_overlap for entry in found.models]) == (
            None,
            [None, None],
        )
        assert found.image_count == TRAINED


class TestRefusals:
    def refused(self, error: type[FerError], models, dataset, out, **options) -> str:
        with pytest.raises(error) as raised:
            compare(models, dataset, Split.TEST, out, chosen(), **options)
        assert not (out / "comparison.json").exists() or options == {"overwrite": False}
        return str(raised.value)

    def test_litert(self, runs, dataset, tmp_path):
        settings = chosen("inference.backend=litert")
        with pytest.raises(ConfigError) as raised:
            compare(runs, dataset, Split.TEST, tmp_path / "out", settings)
        assert str(raised.value).startswith("inference.backend: a comparison runs Keras;")
        assert not (tmp_path / "out").exists()

    def test_other_classes(self, runs, dataset, tmp_path):
        other = make_run(tmp_path / "other", classes=("happy", "angry", "sad"))
        message = self.refused(RunError, [*runs, other], dataset, tmp_path / "out")
        assert message.startswith(
            f"{other}: does not fit the dataset: {dataset}: its classes are angry, happy,"
            f" sad, the model of {other} was trained for happy, angry, sad; "
        )
        assert message.endswith("in the same order")

    def test_another_enhancement(self, runs, dataset, tmp_path):
        other = make_run(tmp_path / "other", enhancement=Enhancement(equalize=True))
        message = self.refused(RunError, [runs[0], other], dataset, tmp_path / "out")
        assert message.startswith(f"{other}: does not fit the dataset: {dataset}: ")
        assert "the enhancement of its images is" in message
        assert "\n" not in message

    def test_the_same_run_twice(self, runs, dataset, tmp_path, monkeypatch):
        monkeypatch.chdir(runs[0].parent)
        again = Path(runs[0].name)
        message = self.refused(RunError, [*runs, again], dataset, tmp_path / "out")
        assert message == f"{again}: is given twice; give each model once"

    def test_no_run_and_no_dataset(self, runs, dataset, tmp_path):
        none, out = tmp_path / "none", tmp_path / "out"
        message = self.refused(RunError, [runs[0], none], dataset, out)
        assert message.startswith(f"{none}: no such folder")
        assert self.refused(DatasetError, runs, none, out).startswith(f"{none}: no such folder")

    def test_an_empty_split(self, runs, dataset, tmp_path):
        with pytest.raises(DatasetError, match="the validation split is empty"):
            compare(runs, dataset, Split.VALIDATION, tmp_path / "out", chosen())

    def test_a_model_that_gives_no_probabilities(self, runs, dataset, tmp_path):
        bad = make_run(tmp_path / "bad", bias=np.nan)
        message = self.refused(RunError, [runs[0], bad], dataset, tmp_path / "out")
        assert message.startswith(f"{bad}: its model cannot be evaluated: expected probabilities")

    def test_a_comparison_that_is_there(self, runs, dataset, compared):
        _, out = compared
        before = contents(out)
        message = self.refused(StorageError, runs, dataset, out, overwrite=False)
        assert message == f"{out}: holds a comparison already; --overwrite replaces it"
        assert contents(out) == before

    def test_a_folder_that_is_someone_elses(self, runs, dataset, tmp_path):
        (tmp_path / "accuracy_cost.png").write_bytes(b"mine")
        message = self.refused(StorageError, runs, dataset, tmp_path)
        assert "not a comparison (it holds accuracy_cost.png)" in message
        assert contents(tmp_path) == {"accuracy_cost.png": b"mine"}


class TestOverwrite:
    def test_replaces_all_of_it(self, runs, dataset, tmp_path):
        compare(runs, dataset, Split.TRAIN, tmp_path, chosen())
        before = contents(tmp_path)
        compare(runs[:2], dataset, Split.TEST, tmp_path, chosen("seed=4"), overwrite=True)
        after = contents(tmp_path)
        assert set(after) == set(OUTPUT_FILES)
        assert all(after[name] != before[name] for name in OUTPUT_FILES)

    def test_that_fails_while_it_writes_leaves_no_mixture(self, runs, dataset, tmp_path):
        compare(runs[:2], dataset, Split.TRAIN, tmp_path, chosen())
        (tmp_path / "accuracy_cost.png").unlink()
        (tmp_path / "accuracy_cost.png").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"accuracy_cost\.png: cannot be written"):
            compare(runs[:2], dataset, Split.TEST, tmp_path, chosen(), overwrite=True)
        assert not (tmp_path / "comparison.json").exists()
        assert not (tmp_path / "config.yaml").exists()
        (tmp_path / "accuracy_cost.png").rmdir()
        # What is torn is replaced without being asked.
        assert compare(runs[:2], dataset, Split.TEST, tmp_path, chosen()).image_count == TESTED
        assert set(contents(tmp_path)) == set(OUTPUT_FILES)


def job(*arguments):
    return subprocess.run(
        [sys.executable, JOB, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestJob:
    def test_in_a_process_of_its_own(self, runs, dataset, compared, tmp_path):
        found, _ = compared
        done = job(
            *(*runs[1:], "--dataset", dataset, "--output", tmp_path / "out"),
            *("--set", "inference.batch_size=30", "--set", "seed=3", "--flip-tta"),
        )
        assert done.returncode == 0, done.stderr
        told = json.loads((tmp_path / "out" / "comparison.json").read_text())
        assert told["flip_tta"] is True
        assert [one["name"] for one in told["models"]] == ["run", "small"]
        assert told["models"][0]["accuracy"] == found.models[1].metrics.accuracy
        assert done.stdout.endswith(f"wrote {tmp_path / 'out' / 'config.yaml'}\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a"], "argument RUN: expected two or more models"),
            ([], "the following arguments are required: RUN"),
            # Options of evaluate, which a comparison cannot have.
            (["a", "b", "--model", "compact"], "unrecognized arguments: --model compact"),
            (["a", "b", "--layers", "x"], "unrecognized arguments: --layers x"),
            (["a", "b", "--backend", "keras"], "unrecognized arguments: --backend keras"),
            (["a", "b", "--image", "0"], "unrecognized arguments: --image 0"),
        ],
    )
    def test_a_wrong_argument(self, arguments, message):
        done = job(*arguments, "--dataset", "d", "--output", "o")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == f"spark-submit.sh compare: error: {message}"


def test_the_dataset_is_not_changed(dataset, compared):
    assert sorted(path.name for path in dataset.iterdir()) == [
        *("manifest.json", "split=test", "split=train"),
    ]
    assert StoredDataset.open(dataset).manifest.checksum == CHECKSUM
