import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from fer_pipeline.metrics.comparison import Comparison
from fer_pipeline.pipelines.compare import OUTPUT_FILES, compare, format_report
from tests.helpers import finished_run
from tests.helpers.evaluation import evaluate
from tests.helpers.folders import read_files
from tests.helpers.processes import run_python
from tests.helpers.stored_datasets import Rowset, write_dataset

pytestmark = pytest.mark.usefixtures("undrawn_figures")


CLASSES = ("angry", "happy", "sad")
SIZE = 16
TRAIN_ROWS = 20
TEST_ROWS = 110
CHECKSUM = "fedcba9876543210"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "compare.py"
KNOWN_OPTIONS = (
    "expected one of --help, --config, --set, --log-level, --dataset, --split, --output,"
    " --overwrite, --flip-tta"
)

# A model predicts the class whose brightness is nearest: the middle of each third of the range.
LEVELS = NORMALIZATION.lookup_table()[[42, 128, 213]].astype(np.float64)


def make_run(
    folder: Path,
    size: int = SIZE,
    bias: float = 0.0,
    *,
    classes: Sequence[str] = CLASSES,
    enhancement: Enhancement | None = None,
    left: bool = False,
) -> Path:
    """Write a run whose model classifies by the brightness of the image or of its left half.

    A bias makes the model worse.
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
    fields: dict[str, Any] = {
        "dataset_checksum": CHECKSUM,
        "enhancement": enhancement or Enhancement(),
    }
    model = serving_model.build_serving_model(network, size, NORMALIZATION)
    finished_run.save(folder, model, classes, network="brightness", **fields)
    return folder


def make_config(*settings: str) -> Config:
    """Return a configuration of the inference."""
    return load_config(None, ["inference.batch_size=30", "seed=3", *settings])


@pytest.fixture(scope="module", autouse=True)
def _short_measurements() -> Iterator[None]:
    """Shorten the measurement of the speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_MIN_MEASUREMENT_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def splits(rows: Rowset) -> dict[str, Rowset]:
    """Rows of each split: most are as bright as their class, some as another one.

    The first rows of the test split have the hashes of the train split.
    """
    rng = np.random.default_rng(5)

    def make_rows(count: int) -> Rowset:
        labels, other_labels = rng.integers(3, size=(2, count)).astype(np.int32)
        levels = np.where(rng.random(count) < 0.7, labels, other_labels)
        faces = 85 * levels[:, None, None] + rng.integers(0, 85, (count, SIZE, SIZE))
        return dataclasses.replace(rows, pixels=faces.astype(np.uint8), labels=labels)

    return {"train": make_rows(TRAIN_ROWS), "test": make_rows(TEST_ROWS)}


@pytest.fixture(scope="module")
def dataset(splits: dict[str, Rowset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"), splits)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good run, a worse run, and a run for smaller images."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "good" / "run"),
        make_run(folder / "worse" / "run", bias=4.0),
        make_run(folder / "small", size=8, bias=1.0),
    ]


@pytest.fixture(scope="module")
def comparison_and_folder(
    runs: list[Path], dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compared") / "a" / "b"
    return compare(runs, dataset, Split.TEST, out, make_config()), out


class TestOutputs:
    def test_the_metrics_are_those_of_evaluate(
        self, runs, dataset, comparison_and_folder, tmp_path
    ):
        comparison, _ = comparison_and_folder
        model_entry = comparison.models[2]
        alone = evaluate(runs[2], dataset, Split.TEST, tmp_path, make_config())
        assert model_entry.metrics == alone.metrics
        assert alone.overlap is not None
        assert model_entry.without_overlap == alone.overlap.without_overlap
        assert [entry.without_overlap.image_count for entry in comparison.models] == 3 * [
            TEST_ROWS - TRAIN_ROWS
        ]
        assert comparison.overlap_count == TRAIN_ROWS

    def test_the_pairs_compare_the_models_on_the_same_images(
        self, runs, splits, comparison_and_folder
    ):
        comparison, _ = comparison_and_folder
        test = splits["test"]
        correct = []
        for run in runs:
            trained_model = TrainedModel.open(run)
            model, model_info = trained_model.load_network(), trained_model.info
            pixels = np.stack([resize(image, model_info.size) for image in test.pixels])
            correct.append(np.argmax(model.predict_on_batch(pixels[..., None]), 1) == test.labels)
        assert comparison.pairs == significance.compare_classifiers(np.array(correct))
        assert comparison.pairs[0].only_first > comparison.pairs[0].only_second > 0

    def test_the_models_have_names_and_costs(self, comparison_and_folder):
        comparison, _ = comparison_and_folder
        assert [entry.name for entry in comparison.models] == ["good/run", "worse/run", "small"]
        assert [entry.size for entry in comparison.models] == [SIZE, SIZE, 8]
        # A convolution of 1x1 with one filter, and 3 units over its mean.
        costs = [(entry.cost.parameters, entry.cost.multiply_adds) for entry in comparison.models]
        assert costs == [(8, 16 * 16 + 3), (8, 16 * 16 + 3), (8, 8 * 8 + 3)]
        assert all(entry.cost.images_per_second > 0 for entry in comparison.models)
        settings = comparison.settings
        assert (settings.batch_size, settings.flip_tta) == (30, False)

    def test_the_folder_describes_the_comparison(self, runs, dataset, comparison_and_folder):
        comparison, out = comparison_and_folder
        assert set(read_files(out)) == set(OUTPUT_FILES)
        assert (out / "accuracy_cost.png").read_bytes().startswith(b"\x89PNG")
        document = json.loads((out / "comparison.json").read_text())
        assert document.pop("versions")["fer_pipeline"]
        assert document == {
            "format": "fer_pipeline comparison",
            "dataset": {"path": str(dataset.resolve()), "checksum": CHECKSUM, "size": SIZE},
            "split": "test",
            **json.loads(json.dumps(comparison.to_dict())),
        }
        assert load_config(out / "config.yaml", []) == make_config()

    def test_the_report_has_three_tables_and_the_files(self, comparison_and_folder):
        comparison, out = comparison_and_folder
        cost_part, quality_part, pair_part, file_list = format_report(comparison, out).split("\n\n")
        assert [part.split()[0] for part in (cost_part, quality_part, pair_part)] == [
            *("model", "model", "first"),
        ]
        assert file_list.splitlines() == [f"wrote {out / name}" for name in OUTPUT_FILES]

    def test_flips_are_averaged(self, runs, dataset, tmp_path):
        left_run = make_run(tmp_path / "left", left=True)
        settings = make_config("inference.flip_tta=true")
        comparison = compare([runs[0], left_run], dataset, Split.TEST, tmp_path / "out", settings)
        alone = evaluate(left_run, dataset, Split.TEST, tmp_path / "alone", settings)
        plain = evaluate(left_run, dataset, Split.TEST, tmp_path / "plain", make_config())
        assert comparison.models[1].metrics == alone.metrics != plain.metrics
        assert comparison.settings.flip_tta
        assert "needs two forward passes" in format_report(comparison, tmp_path / "out")
        assert json.loads((tmp_path / "out" / "comparison.json").read_text())["flip_tta"] is True

    def test_a_batch_has_at_most_the_images_of_the_split(self, runs, dataset, tmp_path):
        settings = make_config("inference.batch_size=1000")
        comparison = compare(runs[:2], dataset, Split.TEST, tmp_path, settings)
        assert 0 < comparison.settings.batch_size <= TEST_ROWS

    def test_each_model_keeps_its_precision(self, runs, dataset, comparison_and_folder, tmp_path):
        with precision.use_precision("mixed_bfloat16"):
            bfloat16_run = make_run(tmp_path / "other")
        comparison = compare(
            [runs[0], bfloat16_run], dataset, Split.TEST, tmp_path / "out", make_config()
        )
        assert [entry.precision for entry in comparison.models] == ["float32", "mixed_bfloat16"]

    def test_the_train_split_has_no_copies_in_training(self, runs, dataset, tmp_path):
        comparison = compare(runs[:2], dataset, Split.TRAIN, tmp_path, make_config())
        assert (
            comparison.overlap_count,
            [entry.without_overlap for entry in comparison.models],
        ) == (
            None,
            [None, None],
        )
        assert comparison.image_count == TRAIN_ROWS


def expect_refusal(
    error_class: type[FerError], models: list[Path], dataset: Path, out: Path, **options: bool
) -> str:
    """Assert that a comparison fails and writes nothing, and return the message."""
    with pytest.raises(error_class) as error:
        compare(models, dataset, Split.TEST, out, make_config(), **options)
    assert not (out / "comparison.json").exists() or options == {"overwrite": False}
    return str(error.value)


class TestRefusals:
    def test_the_backend_litert_is_refused(self, runs, dataset, tmp_path):
        settings = make_config("inference.backend=litert")
        with pytest.raises(ConfigError) as error:
            compare(runs, dataset, Split.TEST, tmp_path / "out", settings)
        assert str(error.value).startswith("inference.backend: a comparison runs Keras;")
        assert not (tmp_path / "out").exists()

    def test_other_classes_are_refused(self, runs, dataset, tmp_path):
        other_run = make_run(tmp_path / "other", classes=("happy", "angry", "sad"))
        message = expect_refusal(RunError, [*runs, other_run], dataset, tmp_path / "out")
        assert message.startswith(
            f"{other_run}: does not fit the dataset: {dataset}: its classes are angry, happy,"
            f" sad, the model of {other_run} was trained for happy, angry, sad; "
        )
        assert message.endswith("in the same order")

    def test_another_enhancement_is_refused(self, runs, dataset, tmp_path):
        other_run = make_run(tmp_path / "other", enhancement=Enhancement(equalize=True))
        message = expect_refusal(RunError, [runs[0], other_run], dataset, tmp_path / "out")
        assert message.startswith(f"{other_run}: does not fit the dataset: {dataset}: ")
        assert "the enhancement of its images is" in message
        assert "\n" not in message

    def test_a_run_that_is_given_twice_is_refused(self, runs, dataset, tmp_path, monkeypatch):
        monkeypatch.chdir(runs[0].parent)
        again = Path(runs[0].name)
        message = expect_refusal(RunError, [*runs, again], dataset, tmp_path / "out")
        assert message == f"{again}: is given twice; give each model once"

    def test_a_missing_run_or_dataset_is_an_error(self, runs, dataset, tmp_path):
        missing, out = tmp_path / "none", tmp_path / "out"
        message = expect_refusal(RunError, [runs[0], missing], dataset, out)
        assert message.startswith(f"{missing}: no such folder")
        assert expect_refusal(DatasetError, runs, missing, out).startswith(
            f"{missing}: no such folder"
        )

    def test_an_empty_split_is_refused(self, runs, dataset, tmp_path):
        with pytest.raises(DatasetError, match="the validation split is empty"):
            compare(runs, dataset, Split.VALIDATION, tmp_path / "out", make_config())

    def test_a_model_without_finite_probabilities_is_refused(self, runs, dataset, tmp_path):
        broken_run = make_run(tmp_path / "bad", bias=np.nan)
        message = expect_refusal(RunError, [runs[0], broken_run], dataset, tmp_path / "out")
        assert message.startswith(
            f"{broken_run}: its model cannot be evaluated: expected probabilities"
        )

    def test_a_comparison_is_not_replaced_without_overwrite(
        self, runs, dataset, comparison_and_folder
    ):
        _, out = comparison_and_folder
        old_files = read_files(out)
        message = expect_refusal(StorageError, runs, dataset, out, overwrite=False)
        assert message == f"{out}: holds a comparison already; --overwrite replaces it"
        assert read_files(out) == old_files

    def test_a_folder_of_other_files_is_refused(self, runs, dataset, tmp_path):
        (tmp_path / "accuracy_cost.png").write_bytes(b"mine")
        message = expect_refusal(StorageError, runs, dataset, tmp_path)
        assert "not a comparison (it holds accuracy_cost.png)" in message
        assert read_files(tmp_path) == {"accuracy_cost.png": b"mine"}


class TestOverwrite:
    def test_an_overwrite_replaces_all_files(self, runs, dataset, tmp_path):
        compare(runs, dataset, Split.TRAIN, tmp_path, make_config())
        old_files = read_files(tmp_path)
        compare(runs[:2], dataset, Split.TEST, tmp_path, make_config("seed=4"), overwrite=True)
        new_files = read_files(tmp_path)
        assert set(new_files) == set(OUTPUT_FILES)
        assert all(new_files[name] != old_files[name] for name in OUTPUT_FILES)

    def test_an_overwrite_that_fails_in_writing_leaves_no_mixture(self, runs, dataset, tmp_path):
        compare(runs[:2], dataset, Split.TRAIN, tmp_path, make_config())
        (tmp_path / "accuracy_cost.png").unlink()
        (tmp_path / "accuracy_cost.png").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"accuracy_cost\.png: cannot be written"):
            compare(runs[:2], dataset, Split.TEST, tmp_path, make_config(), overwrite=True)
        assert not (tmp_path / "comparison.json").exists()
        assert not (tmp_path / "config.yaml").exists()
        (tmp_path / "accuracy_cost.png").rmdir()
        # An incomplete comparison is replaced without --overwrite.
        assert (
            compare(runs[:2], dataset, Split.TEST, tmp_path, make_config()).image_count == TEST_ROWS
        )
        assert set(read_files(tmp_path)) == set(OUTPUT_FILES)


class TestJob:
    def test_the_job_writes_the_comparison(
        self, runs, dataset, comparison_and_folder, shared_process, tmp_path
    ):
        comparison, _ = comparison_and_folder
        process = shared_process.run(
            "compare",
            *(*runs[1:], "--dataset", dataset, "--output", tmp_path / "out"),
            *("--set", "inference.batch_size=30", "--set", "seed=3", "--flip-tta"),
        )
        assert process.status == 0, process.err
        document = json.loads((tmp_path / "out" / "comparison.json").read_text())
        assert document["flip_tta"] is True
        assert [entry["name"] for entry in document["models"]] == ["run", "small"]
        assert document["models"][0]["accuracy"] == comparison.models[1].metrics.accuracy
        assert process.out.endswith(f"wrote {tmp_path / 'out' / 'config.yaml'}\n")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a"], "argument RUN: expected two or more models"),
            ([], "the following arguments are required: RUN"),
            # Options of evaluate that compare does not have.
            (["a", "b", "--model", "compact"], "unknown option --model, did you mean --help?"),
            (["a", "b", "--layers", "x"], f"unknown option --layers, {KNOWN_OPTIONS}"),
            (["a", "b", "--backend", "keras"], f"unknown option --backend, {KNOWN_OPTIONS}"),
            (["a", "b", "--image", "0"], f"unknown option --image, {KNOWN_OPTIONS}"),
        ],
    )
    def test_an_invalid_argument_is_one_error(self, arguments, message):
        process = run_python(JOB, *arguments, "--dataset", "d", "--output", "o")
        assert process.returncode == 2
        assert process.stderr.splitlines()[-1] == f"spark-submit.sh compare: error: {message}"


def test_the_dataset_is_not_changed(dataset, comparison_and_folder):
    assert sorted(path.name for path in dataset.iterdir()) == [
        *("manifest.json", "split=test", "split=train"),
    ]
    assert StoredDataset.open(dataset).manifest.checksum == CHECKSUM
