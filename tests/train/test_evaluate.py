import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline import config, metrics, report
from fer_pipeline.accounting import Split
from fer_pipeline.config import Config
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.learning import bundle
from fer_pipeline.learning.bundle import RunInfo
from fer_pipeline.manifest import DataFile, Image, Manifest, Rows
from fer_pipeline.metrics import Metrics
from fer_pipeline.pixels import Normalization
from fer_pipeline.stages.evaluate import OUTPUTS, evaluate, summary

CLASSES = ("angry", "happy", "sad")
SIZE = 8
CHECKSUM = "0123456789abcdef"
NORMALIZATION = Normalization.centered()
ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "evaluate.py"

# The model takes a face for the class whose brightness is nearest: that of the middle of its third.
LEVELS = NORMALIZATION.table()[[42, 128, 213]].astype(np.float64)
SHARPNESS = 3.0

# 28 rows in three files: no class is always right, and one file is smaller than a row group.
LABELS = {
    "train": [0, 1, 2, 1],
    "test": [0, 0, 1, 2, 2, 1, 0, 2, 1, 1, 1, 0, 2, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 1, 0, 0, 1, 1],
}
FILES = (slice(0, 13), slice(13, 25), slice(25, None))


def origin(split: str, record: int) -> dict[str, object]:
    """Where a row comes from; nothing of it can be guessed from its place."""
    number = 1000 - 7 * record
    return {
        "source": f"file:///faces/{split} {record % 2}.csv",
        "record": 2**40 + number,
        "image_hash": hashlib.md5(str(number).encode()).hexdigest(),
        "variant": ("original", "flip")[record % 2],
        "copy": record % 3,
    }


def pixels_of(split: str) -> npt.NDArray[np.uint8]:
    """A face for each row: mostly as bright as its class, sometimes as another one."""
    random = np.random.default_rng(len(split))
    labels = np.array(LABELS[split])
    shown = np.where(random.random(len(labels)) < 0.7, labels, random.integers(3, size=len(labels)))
    faces = 85 * shown[:, None, None] + random.integers(0, 85, (len(labels), SIZE, SIZE))
    return faces.astype(np.uint8)


def make_dataset(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    size: int = SIZE,
    dtype: str = "uint8",
    splits: Sequence[str] = ("train", "test"),
    **changes: object,
) -> Path:
    """Writes a dataset as preprocess does."""
    files = []
    for split in splits:
        faces = pixels_of(split)
        for number, part in enumerate(FILES):
            labels = LABELS[split][part]
            if not labels:
                continue
            rows = [origin(split, record) for record in range(len(LABELS[split]))[part]]
            path = folder / f"split={split}" / f"part-{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            flat = faces[part].reshape(len(labels), -1)
            stored = (
                pa.array([face.tobytes() for face in flat], pa.binary())
                if dtype == "uint8"
                else pa.array(list(NORMALIZATION.table()[flat]), pa.list_(pa.float32()))
            )
            table = pa.table(
                {
                    "image": stored,
                    "label": pa.array(labels, pa.int32()),
                    "emotion": [classes[label] for label in labels],
                    **{name: [row[name] for row in rows] for name in rows[0]},
                }
            )
            pq.write_table(table, path, row_group_size=5)
            relative = str(path.relative_to(folder))
            files.append(
                DataFile(path=relative, split=split, rows=len(labels), bytes=path.stat().st_size)
            )
    counts = {
        split: {
            name: LABELS[split].count(label) if split in splits else 0
            for label, name in enumerate(classes)
        }
        for split in LABELS
    }
    values = {
        "created": "2024-05-06T07:08:09+00:00",
        "image": Image(size=size, dtype=dtype, normalization=NORMALIZATION),
        "classes": list(classes),
        "files": files,
        "counts": counts,
        "rows": Rows(read=32, kept=counts, dropped={}, quarantined={}, written=32),
        "quarantine": [],
        "sources": [],
        "checksum": CHECKSUM,
        "versions": {},
        "config": {},
    }
    Manifest(**{**values, **changes}).write(folder)
    return folder


def make_run(
    folder: Path, *, classes: Sequence[str] = CLASSES, size: int = SIZE, bias: float = 0.0
) -> Path:
    """Writes a finished run of a model that goes by brightness alone."""
    network = keras.Sequential(
        [keras.Input((size, size, 1)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    )
    # The nearest level has the largest 2 * level * mean - level ** 2.
    kernel = SHARPNESS * 2 * LEVELS[None, :]
    network.layers[-1].set_weights([kernel, bias - SHARPNESS * LEVELS**2])
    bundle.save(bundle.servable(network, size, NORMALIZATION), folder / bundle.MODEL)
    info = RunInfo(
        classes=list(classes),
        size=size,
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


def expected_probabilities(split: str) -> npt.NDArray[np.float64]:
    means = NORMALIZATION.table()[pixels_of(split)].astype(np.float64).mean(axis=(1, 2))
    logits = SHARPNESS * (2 * LEVELS * means[:, None] - LEVELS**2)
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def chosen(batch_size: int = 4) -> Config:
    return config.load(None, [f"inference.batch_size={batch_size}"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    def test_predictions_are_whole_rows_in_the_order_of_the_dataset(self, run, tmp_path, dtype):
        data = make_dataset(tmp_path / "data", dtype=dtype)
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
        given = expected_probabilities("test")
        guesses = given.argmax(axis=1)
        assert 0 < (guesses == LABELS["test"]).sum() < len(guesses)
        assert table.to_pylist() == [
            {
                **origin("test", record),
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
            for record, label in enumerate(LABELS["test"])
        ]

    def test_metrics_say_what_was_evaluated(self, run, dataset, evaluated):
        result, out = evaluated
        expected = metrics.measure(LABELS["test"], expected_probabilities("test"), CLASSES)
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
        assert found["rows"] == 28
        assert {"fer_pipeline", "python", "tensorflow", "keras"} <= set(versions)

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

    def test_the_result_for_the_terminal(self, evaluated):
        result, out = evaluated
        lines = summary(result, out).splitlines()
        right = sum(expected_probabilities("test").argmax(axis=1) == LABELS["test"])
        assert report.class_table(result) in "\n".join(lines)
        assert report.confusion_table(result) in "\n".join(lines)
        assert f"accuracy                 {100 * right / 28:.1f} % of 28 images" in lines
        assert lines[-5:] == [f"wrote {out / name}" for name in OUTPUTS]


class TestRefusals:
    def refused(self, kind: type[FerError], model: Path, data: Path, out: Path) -> str:
        before = contents(out) if out.is_dir() else None
        with pytest.raises(kind) as caught:
            evaluate(model, data, Split.TEST, out, chosen())
        assert (contents(out) if out.is_dir() else None) == before
        return str(caught.value)

    @pytest.mark.parametrize("classes", [("angry", "happy", "fear"), ("happy", "angry", "sad")])
    def test_other_classes_or_another_order(self, run, tmp_path, classes):
        data = make_dataset(tmp_path / "data", classes=classes)
        assert self.refused(DatasetError, run, data, tmp_path / "out") == (
            f"{data}: its classes are {', '.join(classes)}, the model of {run} was trained for"
            " angry, happy, sad; evaluate it on a dataset with those, in that order"
        )

    def test_another_size(self, run, tmp_path):
        data = make_dataset(tmp_path / "data", size=9)
        assert self.refused(DatasetError, run, data, tmp_path / "out") == (
            f"{data}: its images are 9x9, the model of {run} takes 8x8;"
            " run preprocess with image.size=8"
        )

    def test_an_empty_split(self, run, tmp_path):
        data = make_dataset(tmp_path / "data", splits=["train"])
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message.startswith(f"{data}: the test split is empty; rows per split: train (4)")

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

    def test_a_dataset_that_is_not_what_its_manifest_says(self, run, tmp_path):
        counts = {"train": dict.fromkeys(CLASSES, 1), "test": {"angry": 8, "happy": 13, "sad": 7}}
        data = make_dataset(tmp_path / "data", counts=counts)
        message = self.refused(DatasetError, run, data, tmp_path / "out")
        assert message == (
            f"{data}: the test split holds {{'angry': 9, 'happy': 12, 'sad': 7}}, its manifest says"
            " {'angry': 8, 'happy': 13, 'sad': 7}; run preprocess again"
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
        assert evaluate(run, dataset, Split.TEST, tmp_path, chosen()).rows == 28


class TestWarnings:
    def warned(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    def test_none_where_there_is_nothing_to_say(self, run, dataset, tmp_path, caplog):
        evaluate(run, dataset, Split.TEST, tmp_path, chosen())
        assert self.warned(caplog) == []

    def test_of_the_train_split(self, run, dataset, tmp_path, caplog):
        assert evaluate(run, dataset, Split.TRAIN, tmp_path, chosen()).rows == 4
        (message,) = self.warned(caplog)
        assert message.startswith("the train split is what the model learnt from")

    def test_of_another_dataset(self, run, tmp_path, caplog):
        data = make_dataset(tmp_path / "data", checksum="f" * 16)
        evaluate(run, data, Split.TEST, tmp_path / "out", chosen())
        assert self.warned(caplog) == [
            "the model was trained on another dataset (checksum 0123456789abcdef, this one:"
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
