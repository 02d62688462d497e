import dataclasses
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline import config, manifest, metrics, report
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.learning import bundle
from fer_pipeline.learning.bundle import RunInfo
from fer_pipeline.manifest import Image
from fer_pipeline.metrics import Metrics
from fer_pipeline.pixels import Normalization
from fer_pipeline.stages.evaluate import OUTPUTS, evaluate, summary

CLASSES = ("angry", "happy", "sad")
SIZE = 16
CHECKSUM = "fedcba9876543210"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "evaluate.py"

# The model takes a face for the class whose brightness is nearest: that of the middle of its third.
LEVELS = NORMALIZATION.table()[[42, 128, 213]].astype(np.float64)
SHARPNESS = 3.0


@pytest.fixture(scope="module")
def splits(rows: Any) -> dict[str, Any]:
    """The rows of each split: mostly as bright as their class, sometimes as another one."""
    random = np.random.default_rng(5)

    def made(count: int) -> Any:
        labels, others = random.integers(3, size=(2, count)).astype(np.int32)
        shown = np.where(random.random(count) < 0.7, labels, others)
        faces = 85 * shown[:, None, None] + random.integers(0, 85, (count, SIZE, SIZE))
        return dataclasses.replace(rows, pixels=faces.astype(np.uint8), labels=labels)

    return {"train": made(20), "test": made(110)}


@pytest.fixture(scope="module")
def make_dataset(splits: dict[str, Any], write_dataset: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a dataset of these rows, and changes what its manifest says."""

    def make(folder: Path, dtype: str = "uint8", **changes: object) -> Path:
        write_dataset(folder, splits, dtype=dtype)
        manifest.read(folder).model_copy(update=changes).write(folder)
        return folder

    return make


def make_run(folder: Path, *, bias: float = 0.0) -> Path:
    """Writes a finished run of a model that goes by brightness alone."""
    network = keras.Sequential(
        [keras.Input((SIZE, SIZE, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    )
    # The nearest level has the largest 2 * level * mean - level ** 2.
    kernel = SHARPNESS * 2 * LEVELS[None, :]
    network.layers[-1].set_weights([kernel, bias - SHARPNESS * LEVELS**2])
    bundle.save(bundle.servable(network, SIZE, NORMALIZATION), folder / bundle.MODEL)
    info = RunInfo(
        classes=list(CLASSES),
        size=SIZE,
        normalization=NORMALIZATION,
        dataset_checksum=CHECKSUM,
        network="brightness",
        options={},
        parameters=6,
        best_step=1,
        best_accuracy=None,
        seed=0,
        sha256=bundle.digest(folder / bundle.MODEL),
        versions={},
    )
    (folder / bundle.INFO).write_text(info.model_dump_json())
    return folder


def expected_probabilities(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    means = NORMALIZATION.table()[pixels].astype(np.float64).mean(axis=(1, 2))
    powers = np.exp(SHARPNESS * (2 * LEVELS * means[:, None] - LEVELS**2))
    return powers / powers.sum(axis=1, keepdims=True)


def chosen(batch_size: int = 6) -> Config:
    return config.load(None, [f"inference.batch_size={batch_size}"])


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def evaluated(
    run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Metrics, Path]:
    """The test split of the dataset, evaluated into a folder that was not there."""
    out = tmp_path_factory.mktemp("evaluated") / "a" / "b"
    return evaluate(run, dataset, Split.TEST, out, chosen()), out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestOutputs:
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_predictions_are_whole_rows_in_the_order_of_the_dataset(
        self, run, splits, make_dataset, tmp_path, dtype
    ):
        data = make_dataset(tmp_path / "data", dtype)
        evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        table = pq.read_table(tmp_path / "out" / "predictions.parquet")
        assert list(zip(table.schema.names, table.schema.types, strict=True)) == [
            ("source", pa.string()),
            ("record", pa.int64()),
            ("image_hash", pa.string()),
            ("variant", pa.string()),
            ("copy", pa.int32()),
            ("label", pa.int32()),
            ("emotion", pa.string()),
            ("predicted", pa.string()),
            ("correct", pa.bool_()),
            ("confidence", pa.float32()),
            *((f"p_{name}", pa.float32()) for name in CLASSES),
        ]
        rows = splits["test"]
        given = expected_probabilities(rows.pixels)
        guesses = given.argmax(axis=1)
        assert 0.5 < (guesses == rows.labels).mean() < 1
        assert table.to_pylist() == [
            {
                **rows.origin(record),
                "label": label,
                "emotion": CLASSES[label],
                "predicted": CLASSES[guesses[record]],
                "correct": bool(label == guesses[record]),
                "confidence": pytest.approx(given[record].max(), abs=1e-6),
                **{
                    f"p_{name}": pytest.approx(given[record, i], abs=1e-6)
                    for i, name in enumerate(CLASSES)
                },
            }
            for record, label in enumerate(rows.labels)
        ]

    def test_metrics_say_what_was_evaluated(self, run, splits, dataset, evaluated):
        result, out = evaluated
        rows = splits["test"]
        expected = metrics.measure(rows.labels, expected_probabilities(rows.pixels), CLASSES)
        assert result.classes == expected.classes
        assert result.confusion == expected.confusion
        assert result.top2_accuracy == expected.top2_accuracy
        assert result.loss == pytest.approx(expected.loss, abs=1e-6)
        found = json.loads((out / "metrics.json").read_text())
        versions = found.pop("versions")
        assert found == {
            "format": "fer_pipeline evaluation",
            "model": {
                "path": str(run.resolve()),
                "sha256": bundle.digest(run / bundle.MODEL),
                "dataset_checksum": CHECKSUM,
            },
            "dataset": {"path": str(dataset.resolve()), "checksum": CHECKSUM},
            "split": "test",
            **result.to_dict(),
        }
        assert found["rows"] == 110
        assert {"fer_pipeline", "python", "keras"} <= set(versions)
        assert {"tensorflow", "tensorflow-cpu"} & set(versions)

    def test_the_folder_holds_the_outputs_and_nothing_else(self, evaluated):
        _, out = evaluated
        assert {path.name for path in out.iterdir()} == set(OUTPUTS)
        assert config.load(out / "config.yaml") == chosen()

    def test_the_pictures_can_be_seen(self, evaluated):
        for name in ("confusion_matrix.png", "classes.png"):
            picture = cv2.imread(str(evaluated[1] / name))
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    def test_the_size_of_the_batches_changes_nothing(self, run, dataset, evaluated, tmp_path):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen(256))
        by_four, at_once = (
            pq.read_table(out / "predictions.parquet").to_pylist()
            for out in (evaluated[1], tmp_path)
        )
        assert at_once == [
            {key: pytest.approx(v) if type(v) is float else v for key, v in row.items()}
            for row in by_four
        ]

    def test_a_second_evaluation_gives_the_same_bytes(self, run, dataset, evaluated, tmp_path):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen())
        assert contents(tmp_path) == contents(evaluated[1])

    def test_the_result_for_the_terminal(self, splits, evaluated):
        result, out = evaluated
        lines = summary(result, out).splitlines()
        rows = splits["test"]
        right = (expected_probabilities(rows.pixels).argmax(axis=1) == rows.labels).mean()
        assert report.class_table(result) in "\n".join(lines)
        assert report.confusion_table(result) in "\n".join(lines)
        assert f"accuracy                 {100 * right:.1f} % of 110 images" in lines
        assert lines[-5:] == [f"wrote {out / name}" for name in OUTPUTS]


class TestRefusals:
    def refused(self, kind: type[FerError], model: Path, data: Path, out: Path) -> str:
        before = contents(out) if out.is_dir() else None
        with pytest.raises(kind) as caught:
            evaluate(model, data, Split.TEST, out, chosen())
        assert (contents(out) if out.is_dir() else None) == before
        return str(caught.value)

    @pytest.mark.parametrize("classes", [("angry", "happy", "fear"), ("happy", "angry", "sad")])
    def test_other_classes_or_another_order(self, run, make_dataset, tmp_path, classes):
        data = make_dataset(tmp_path / "data", classes=list(classes))
        assert self.refused(DatasetError, run, data, tmp_path / "out") == (
            f"{data}: its classes are {', '.join(classes)}, the model of {run} was trained for"
            " angry, happy, sad; evaluate it on a dataset with those, in that order"
        )

    def test_another_size(self, run, make_dataset, tmp_path):
        image = Image(size=9, dtype="uint8", normalization=NORMALIZATION)
        data = make_dataset(tmp_path / "data", image=image)
        assert self.refused(DatasetError, run, data, tmp_path / "out") == (
            f"{data}: its images are 9x9, the model of {run} takes 16x16;"
            " run preprocess with image.size=16"
        )

    def test_an_empty_split(self, run, dataset, tmp_path):
        with pytest.raises(DatasetError, match="the validation split is empty"):
            evaluate(run, dataset, Split.VALIDATION, tmp_path / "out", chosen())
        assert not (tmp_path / "out").exists()

    def test_no_dataset_and_no_run(self, run, dataset, tmp_path):
        nothing, out = tmp_path / "nothing", tmp_path / "out"
        assert "no such folder" in self.refused(DatasetError, run, nothing, out)
        assert "no such folder" in self.refused(RunError, nothing, dataset, out)

    def test_an_evaluation_that_is_there(self, run, dataset, evaluated):
        _, out = evaluated
        assert self.refused(StorageError, run, dataset, out) == (
            f"{out}: holds an evaluation already; --overwrite replaces it"
        )

    def test_a_folder_that_is_someone_elses(self, run, dataset, tmp_path):
        (tmp_path / "thesis.tex").write_text("three years of work")
        assert "there is thesis.tex" in self.refused(StorageError, run, dataset, tmp_path)
        assert "not an evaluation" in self.refused(StorageError, run, dataset, run)

    def test_a_dataset_that_is_not_what_its_manifest_says(
        self, run, splits, make_dataset, tmp_path
    ):
        angry, happy, sad = np.bincount(splits["test"].labels).tolist()
        counts = {Split.TEST: {"angry": angry - 1, "happy": happy + 1, "sad": sad}}
        data = make_dataset(tmp_path / "data", counts=counts)
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message == (
            f"{data}: the test split holds {{'angry': {angry}, 'happy': {happy}, 'sad': {sad}}},"
            f" its manifest says {counts[Split.TEST]}; run preprocess again"
        )

    def test_a_model_that_gives_no_probabilities(self, dataset, tmp_path):
        model = make_run(tmp_path / "run", bias=math.nan)
        message = self.refused(RunError, model, dataset, tmp_path / "out")
        assert message == (
            f"{model}: its model cannot be evaluated:"
            " expected probabilities, got values that are not finite"
        )


class TestOverwrite:
    def test_replaces_all_of_it(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, chosen(2))
        before = contents(tmp_path)
        (tmp_path / ".metrics-a1b2c3_d.json").write_text("{")
        evaluate(run, dataset, Split.TEST, tmp_path, chosen(), overwrite=True)
        after = contents(tmp_path)
        assert set(after) == set(OUTPUTS)
        assert all(after[name] != before[name] for name in OUTPUTS)

    def test_that_fails_while_it_predicts_leaves_the_old_one_whole(
        self, dataset, evaluated, tmp_path
    ):
        _, out = evaluated
        before = contents(out)
        bad = make_run(tmp_path / "run", bias=math.nan)
        with pytest.raises(RunError):
            evaluate(bad, dataset, Split.TEST, out, chosen(), overwrite=True)
        assert contents(out) == before

    def test_that_fails_while_it_writes_leaves_no_mixture(self, run, dataset, tmp_path):
        evaluate(run, dataset, Split.TRAIN, tmp_path, chosen())
        (tmp_path / "classes.png").unlink()
        (tmp_path / "classes.png").mkdir()  # a file cannot take its place
        with pytest.raises(StorageError, match=r"classes\.png: cannot be written"):
            evaluate(run, dataset, Split.TEST, tmp_path, chosen(), overwrite=True)
        assert not (tmp_path / "metrics.json").exists()
        (tmp_path / "classes.png").rmdir()
        # What is torn is replaced without being asked.
        assert evaluate(run, dataset, Split.TEST, tmp_path, chosen()).rows == 110


class TestWarnings:
    def warned(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        # TensorFlow has something to say of many models in one process, which no user has.
        ours = [record for record in caplog.records if record.name.startswith("fer_pipeline")]
        return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]

    def test_none_where_there_is_nothing_to_say(self, run, dataset, tmp_path, caplog):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen())
        assert self.warned(caplog) == []

    def test_of_the_train_split(self, run, dataset, tmp_path, caplog):
        assert evaluate(run, dataset, Split.TRAIN, tmp_path, chosen()).rows == 20
        (message,) = self.warned(caplog)
        assert message.startswith("the train split is what the model learnt from")

    def test_of_another_dataset(self, run, make_dataset, tmp_path, caplog):
        data = make_dataset(tmp_path / "data", checksum="f" * 16)
        evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert self.warned(caplog) == [
            "the model was trained on another dataset (checksum fedcba9876543210, this one:"
            " ffffffffffffffff): it may have learnt from images of this split"
        ]


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestJob:
    def test_in_a_process_of_its_own(self, run, dataset, tmp_path):
        command = [JOB, "--model", run, "--dataset", dataset, "--split", "test"]
        command += ["--output", tmp_path / "out", "--set", "inference.batch_size=5"]
        done = python(*command)
        assert done.returncode == 0, done.stderr
        # What the process prints is what the same evaluation gives here.
        result = evaluate(run, dataset, Split.TEST, tmp_path / "here", chosen(5))
        assert done.stdout == summary(result, tmp_path / "out") + "\n"
        assert contents(tmp_path / "out") == contents(tmp_path / "here")
        again = python(*command)
        assert again.returncode == 1
        assert again.stdout == ""
        assert again.stderr.splitlines()[-1] == (
            f"error: {tmp_path / 'out'}: holds an evaluation already; --overwrite replaces it"
        )

    def test_its_help_needs_no_tensorflow(self):
        code = (
            "import runpy, sys\n"
            "sys.argv = ['evaluate', '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(JOB)!r}, run_name='__main__')\n"
            "except SystemExit:\n"
            "    heavy = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'pyspark', 'petastorm'}\n"
            "    print(sorted(heavy & set(sys.modules)))\n"
        )
        done = python("-c", code)
        assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
        assert "--split {train,validation,test}" in done.stdout
