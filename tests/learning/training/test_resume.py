"""Runs that are killed and resumed, compared with undisturbed runs."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.learning.training import checkpoint, precision
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.run_config import load_run_config
from fer_pipeline.pipelines.train import train
from tests.fixtures.figures import replace_drawing
from tests.helpers.stored_datasets import make_easy_rows, write_dataset

ROOT = Path(__file__).resolve().parents[3]
JOB = ROOT / "jobs" / "train.py"

# Everything that has a state: the random numbers of dropout, the statistics of BatchNormalization,
# Adam's moments, the average of the weights, the plateau's patience, random augmentations.
NETWORK = """
import keras

def build(size, classes):
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(classes),
        ]
    )
"""
STATEFUL_SETTINGS = [
    "seed=5",
    "loader.batch_size=23",
    "model.name=stateful.network",
    "training.epochs=4",
    "training.validate_every_steps=4",
    "training.checkpoint_every_steps=3",
    "training.optimizer.name=adamw",
    "training.optimizer.learning_rate=0.01",
    "training.optimizer.weight_decay=0.01",
    "training.optimizer.global_clipnorm=1",
    "training.schedule.kind=plateau",
    "training.schedule.patience=2",
    "training.schedule.min_delta=0.3",
    "training.early_stopping.monitor=val_loss",
    "training.early_stopping.patience=50",
    "training.label_smoothing=0.1",
    "training.mixup_alpha=0.2",
    "training.ema_decay=0.9",
    "training.class_weights=balanced",
    "training.augmentation.flip=true",
    "training.augmentation.rotation=10",
    "training.augmentation.random_erasing=0.5",
]


@pytest.fixture(scope="module", autouse=True)
def package_folder(tmp_path_factory):
    """The folder of a user's package, which this process and its children can import."""
    folder = tmp_path_factory.mktemp("user")
    package = folder / "stateful"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "network.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def make_config(*overrides: str) -> Config:
    return load_config(None, [*STATEFUL_SETTINGS, *overrides])


def make_arguments(*overrides: str) -> list[str]:
    return [f"--set={setting}" for setting in (*STATEFUL_SETTINGS, *overrides)]


@pytest.fixture(scope="module")
def undisturbed_run(easy_dataset, tmp_path_factory, package_folder):
    """The folder of a run that was not interrupted, and its ModelInfo."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with replace_drawing():
        return folder, train(str(easy_dataset), str(folder), make_config())


def load_own_config(run: Path) -> Config:
    """Return the configuration with which a run is resumed by default."""
    return load_run_config(str(run), None, [], resume=True)


class Outputs(NamedTuple):
    """Parts of a run that are equal to the last bit in two equal runs.

    Attributes:
        files: Names of all files.
        weights: Bytes of each weight; the file of the model also contains the time.
        model_info: Content of model.json, without the checksum of the model.
        texts: Bytes of the other files that do not depend on the time, by name.
    """

    files: set[str]
    weights: list[bytes]
    model_info: ModelInfo
    texts: dict[str, bytes]


def read_outputs(folder: Path) -> Outputs:
    names = ("history.csv", "model.weights.h5", "accuracy.png", "config.yaml")
    files = {path.name for path in folder.iterdir()}
    weights = [array.tobytes() for array in TrainedModel.open(folder).load_network().get_weights()]
    model_info = trained_model.read_model_info(folder).model_copy(update={"sha256": ""})
    texts = {name: (folder / name).read_bytes() for name in names if name != "model.weights.h5"}
    return Outputs(files, weights, model_info, texts)


class Killed(BaseException):
    """An exception that the package does not catch, like the end of a process by SIGKILL."""


@contextlib.contextmanager
def kill_after_checkpoints(count: int) -> Iterator[None]:
    """End the block after a number of checkpoints, if it writes so many."""
    write, left = checkpoint.write_checkpoint, [count]

    def write_and_end(*arguments: Any) -> None:
        write(*arguments)
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_checkpoint", write_and_end)
        with contextlib.suppress(Killed):
            yield


def change_state(path: Path, **fields: Any) -> None:
    """Rewrite a checkpoint with other fields of its state."""
    stored = checkpoint.read_checkpoint(path)
    changed = replace(stored, state=stored.state.model_copy(update=fields))
    checkpoint.write_checkpoint(path, changed)


@contextlib.contextmanager
def kill_before_first_step() -> Iterator[None]:
    """End the block before the first training step."""

    def end(*arguments: Any, **options: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "run_restart", end)
        with contextlib.suppress(Killed):
            yield


def kill_after_calls(write: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Return a function that calls another one, or raises Killed once no calls are left.

    Args:
        write: Function to call.
        left: The number of calls that are left; several functions may share the list.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return write(*arguments, **options)

    return call


@pytest.mark.usefixtures("undrawn_figures")
class TestResume:
    def test_a_run_killed_after_each_checkpoint_equals_an_undisturbed_one(
        self, easy_dataset, tmp_path, undisturbed_run
    ):
        folder, _ = undisturbed_run
        run = tmp_path / "run"
        # Each process writes one checkpoint and ends.
        processes = 0
        while not (run / "model.json").exists():
            with kill_after_checkpoints(1):
                train(str(easy_dataset), str(run), make_config(), resume=processes > 0)
            processes += 1
        # Every 3 steps, at the end of each epoch of 5 steps, and at each validation.
        due = {step for step in range(1, 21) if step % 3 == 0 or step % 5 == 0 or step % 4 == 0}
        assert processes == len(due) + 1
        assert read_outputs(run) == read_outputs(folder)

    def test_a_run_killed_in_each_restart_equals_an_undisturbed_one(self, easy_dataset, tmp_path):
        settings = make_config("training.restarts=2", "training.epochs=2")
        expected = train(str(easy_dataset), str(tmp_path / "undisturbed"), settings)
        run = tmp_path / "run"
        for count in (2, 6):
            with kill_after_checkpoints(count):
                train(str(easy_dataset), str(run), settings, resume=run.exists())
        model_info = train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "undisturbed")
        assert model_info.best_restart == expected.best_restart
        rows = (run / "history.csv").read_text().splitlines()[1:]
        assert [row.split(",")[-2] for row in rows] == [
            restart for restart in "01" for _ in range(4)
        ]

    def test_a_run_killed_after_early_stopping_makes_no_further_step(self, easy_dataset, tmp_path):
        # It stops at its third validation; the resuming process makes no further step.
        early = make_config(
            "training.early_stopping.patience=1", "training.early_stopping.min_delta=99"
        )
        train(str(easy_dataset), str(tmp_path / "undisturbed"), early)
        rows = (tmp_path / "undisturbed" / "history.csv").read_text().splitlines()
        assert len(rows) == 4
        run = tmp_path / "run"
        with kill_after_checkpoints(4):
            train(str(easy_dataset), str(run), early)
        train(str(easy_dataset), str(run), early, resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "undisturbed")

    @pytest.mark.slow
    def test_a_run_keeps_its_precision_on_a_machine_with_another_one(
        self, easy_dataset, tmp_path, monkeypatch
    ):
        mixed = make_config("training.precision=auto", "training.epochs=2")
        monkeypatch.setattr(precision, "_supports_bfloat16", lambda: True)
        expected = train(str(easy_dataset), str(tmp_path / "undisturbed"), mixed)
        assert expected.precision == "mixed_bfloat16"
        run = tmp_path / "run"
        with kill_after_checkpoints(2):
            train(str(easy_dataset), str(run), mixed)
        # As on another machine.
        monkeypatch.setattr(precision, "_supports_bfloat16", lambda: False)
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "undisturbed")
        assert keras.config.dtype_policy().name == "float32"

    @pytest.mark.slow
    def test_a_run_with_a_cache_and_a_schedule_by_step_equals_an_undisturbed_one(
        self, easy_dataset, tmp_path
    ):
        settings = make_config(
            *("loader.cache_in_memory=true", "training.schedule.kind=cosine", "training.epochs=3"),
            "training.schedule.warmup_epochs=1",
        )
        train(str(easy_dataset), str(tmp_path / "undisturbed"), settings)
        run = tmp_path / "run"
        for count in (2, 3):
            with kill_after_checkpoints(count):
                train(str(easy_dataset), str(run), settings, resume=run.exists())
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "undisturbed")

    @pytest.mark.slow
    def test_a_run_with_teachers_is_resumed_only_with_the_same_teachers(
        self, easy_dataset, tmp_path, undisturbed_run
    ):
        names = [str(tmp_path / name) for name in ("first", "second")]
        shutil.copytree(undisturbed_run[0], names[0])
        train(str(easy_dataset), names[1], make_config("training.epochs=1"))
        taught = [f"training.distillation.teachers=[{', '.join(names)}]", "training.epochs=3"]
        train(str(easy_dataset), str(tmp_path / "undisturbed"), make_config(*taught))
        run = tmp_path / "run"
        for count in (2, 3):
            with kill_after_checkpoints(count):
                train(str(easy_dataset), str(run), make_config(*taught), resume=run.exists())
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "undisturbed")
        shutil.rmtree(names[1])
        shutil.copytree(undisturbed_run[0], names[1])
        with pytest.raises(RunError) as error:
            train(str(easy_dataset), str(copy), load_own_config(copy), resume=True)
        assert str(error.value).startswith(f"{copy}: the model of {names[1]} has changed since ")
        assert str(error.value).endswith("; start again with --overwrite")

    def test_a_run_killed_at_any_write_of_its_publication_is_completed(
        self, easy_dataset, tmp_path
    ):
        """A process ends at one of the writes, and another one continues."""
        short = make_config("training.epochs=null", "training.steps=1")
        trained = tmp_path / "trained"
        with kill_after_checkpoints(1):
            train(str(easy_dataset), str(trained), short)
        writes = ("remove", "remove_folder", "move", "write_text")
        outputs = []
        for number in range(40):
            run = shutil.copytree(trained, tmp_path / str(number))
            with pytest.MonkeyPatch.context() as patch:
                left = [number]
                for name in writes:
                    patch.setattr(storage, name, kill_after_calls(getattr(storage, name), left))
                try:
                    train(str(easy_dataset), str(run), short, resume=True)
                except Killed:
                    pass
                else:
                    break
            train(str(easy_dataset), str(run), short, resume=True)
            outputs.append(read_outputs(run))
            assert outputs[-1] == outputs[0]
        assert number > 8


def start_job(*arguments: Path | str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(JOB), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_newer(path: Path, time_ns: int) -> bool:
    """Return whether a file exists and was modified after a time, in ns since the epoch."""
    try:
        return path.stat().st_mtime_ns > time_ns
    except FileNotFoundError:
        return False


class TestKilledProcesses:
    @pytest.mark.parametrize(
        ("kills", "epochs"), [(1, 12), pytest.param(4, 60, marks=pytest.mark.slow)]
    )
    def test_a_run_killed_at_random_times_equals_an_undisturbed_one(
        self, easy_dataset, tmp_path, package_folder, caplog, kills, epochs
    ):
        """Real processes are ended by SIGKILL at random times."""
        settings = (f"training.epochs={epochs}", "training.validate_every_steps=16")
        folders = ["--dataset", easy_dataset, "--output"]
        reference, run = tmp_path / "undisturbed", tmp_path / "run"
        moments = np.random.default_rng(int(time.time() * 1000))
        running = start_job(*folders, run, *make_arguments(*settings), cwd=package_folder)
        for number in range(kills):
            last_write = (run / RunFile.CHECKPOINT).stat().st_mtime_ns if number else 0
            while running.poll() is None and not is_newer(run / RunFile.CHECKPOINT, last_write):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.5))
            assert running.stdout is not None
            assert running.poll() is None, running.stdout.read()
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            running.stdout.close()
            assert not (run / "model.json").exists()
            if number < kills - 1:
                running = start_job(*folders, run, "--resume", cwd=package_folder)
        with caplog.at_level("INFO"):
            train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert "resuming after step " in caplog.text
        train(str(easy_dataset), str(reference), make_config(*settings))
        assert read_outputs(run) == read_outputs(reference)


def get_training_error(
    kind: type[Exception], dataset: Path, run: Path, config: Config, **options: bool
) -> str:
    """Return the message, one line, of the error of a training."""
    with pytest.raises(kind) as error:
        train(str(dataset), str(run), config, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def killed_run(easy_dataset, tmp_path_factory, package_folder):
    """The folder of a run that was killed after three checkpoints."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with kill_after_checkpoints(3):
        train(str(easy_dataset), str(folder), make_config())
    return folder


@pytest.fixture
def unfinished_run(killed_run, tmp_path):
    """A copy of the killed run, which a test may change."""
    return shutil.copytree(killed_run, tmp_path / "run")


@pytest.mark.usefixtures("undrawn_figures")
class TestResumeErrors:
    def test_an_unfinished_run_is_overwritten_only_on_request(self, easy_dataset, unfinished_run):
        message = get_training_error(StorageError, easy_dataset, unfinished_run, make_config())
        assert message.startswith(f"{unfinished_run}: holds an unfinished run; ")
        assert "--resume" in message
        assert "--overwrite" in message
        train(
            str(easy_dataset), str(unfinished_run), make_config("training.epochs=1"), overwrite=True
        )
        assert not (unfinished_run / RunFile.CHECKPOINT).exists()
        assert len((unfinished_run / "history.csv").read_text().splitlines()) == 4

    def test_a_different_configuration_is_refused(self, easy_dataset, unfinished_run):
        config = make_config("training.optimizer.learning_rate=0.5", "training.epochs=7")
        message = get_training_error(ConfigError, easy_dataset, unfinished_run, config, resume=True)
        assert message.startswith(
            f"{unfinished_run}: the run was started with a different training.epochs,"
            " training.optimizer.learning_rate; "
        )
        assert "without --config and --set" in message
        assert message.endswith(" --overwrite")

    @pytest.mark.parametrize(
        ("change", "differs"),
        [
            (lambda text: text.replace("fedcba9876543210", "0" * 16), "checksum"),
            (lambda text: text.replace('"angry"', '"fear"'), "classes"),
            (lambda text: text.replace('"centered"', '"unit"'), "image"),
            (lambda text: text.replace('"equalize": false', '"equalize": true'), "image"),
        ],
        ids=["content", "classes", "normalisation", "enhancement"],
    )
    def test_a_different_dataset_is_refused(
        self, easy_dataset, unfinished_run, tmp_path, change, differs
    ):
        dataset = tmp_path / "other"
        shutil.copytree(easy_dataset, dataset)
        manifest = dataset / "manifest.json"
        manifest.write_text(change(manifest.read_text()))
        message = get_training_error(
            DatasetError, dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert message.startswith(f"{dataset}: is not the dataset ")
        assert f" the run in {unfinished_run} was started (it differs in {differs}); " in message
        assert message.endswith(" --overwrite")

    def test_the_same_rows_in_other_row_groups_are_refused(self, unfinished_run, tmp_path):
        # The easy dataset with another layout: the current epoch would lose rows.
        sizes = {"train": 115, "validation": 40, "test": 20}
        splits = {name: make_easy_rows(n, 10 + n) for name, n in sizes.items()}
        dataset = write_dataset(tmp_path / "other", splits, layout=((50,), (65,)))
        message = get_training_error(
            DatasetError, dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert "(it differs in files)" in message

    def test_settings_without_influence_on_the_model_may_change(
        self, easy_dataset, unfinished_run, undisturbed_run
    ):
        config = make_config(
            *("inference.batch_size=7", "training.checkpoint_every_steps=2"),
            *("tracking.tensorboard=false", "loader.reader=pyarrow"),
        )
        train(str(easy_dataset), str(unfinished_run), config, resume=True)
        files, weights, model_info, _ = read_outputs(unfinished_run)
        expected_files, expected_weights, expected_info, _ = read_outputs(undisturbed_run[0])
        assert (files | {"tensorboard"}, weights, model_info) == (
            expected_files,
            expected_weights,
            expected_info,
        )
        assert not (unfinished_run / "tensorboard").exists()

    def test_the_temperature_may_be_set_on_resuming(
        self, easy_dataset, unfinished_run, undisturbed_run
    ):
        model_info = train(
            str(easy_dataset),
            str(unfinished_run),
            make_config("model.temperature=1.5"),
            resume=True,
        )
        assert model_info.temperature == 1.5 != undisturbed_run[1].temperature
        files, weights, _, _ = read_outputs(unfinished_run)
        expected_files, expected_weights, _, _ = read_outputs(undisturbed_run[0])
        assert (files, weights) == (expected_files, expected_weights)

    @pytest.mark.parametrize("length", [0, 1, 100, -1, -100])
    def test_a_truncated_checkpoint_is_refused(self, easy_dataset, unfinished_run, length):
        path = unfinished_run / RunFile.CHECKPOINT
        path.write_bytes(path.read_bytes()[:length])
        message = get_training_error(
            RunError, easy_dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert message.startswith(f"{path}: is not a complete checkpoint (")
        assert message.endswith("; start again with --overwrite")

    def test_a_checkpoint_of_an_older_version_is_refused(self, easy_dataset, unfinished_run):
        path = unfinished_run / RunFile.CHECKPOINT
        with np.load(path) as file:
            entries = {name: file[name] for name in file.files}
        document = json.loads(entries["notes.json"].tobytes())
        older = json.dumps({**document, "format_version": 1})
        entries["notes.json"] = np.frombuffer(older.encode(), np.uint8)
        np.savez(path, **entries)
        message = get_training_error(
            RunError, easy_dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert message.endswith(f"; convert it with scripts/migrate-run {unfinished_run}")

    def test_a_configuration_of_an_older_version_is_refused(self, unfinished_run):
        path = unfinished_run / "unfinished.yaml"
        path.write_text(path.read_text().replace("loader:", "feed:"))
        with pytest.raises(RunError, match=rf"scripts/migrate-run {unfinished_run}$"):
            load_run_config(str(unfinished_run), None, [], resume=True)

    def test_a_migrated_checkpoint_is_resumed_without_sizes_of_files(
        self, easy_dataset, unfinished_run, undisturbed_run
    ):
        path = unfinished_run / RunFile.CHECKPOINT
        dataset = checkpoint.read_checkpoint(path).state.dataset
        files = [[split, rows, None] for split, rows, _ in dataset["files"]]
        change_state(path, dataset={**dataset, "files": files})
        model_info = train(
            str(easy_dataset), str(unfinished_run), load_own_config(unfinished_run), resume=True
        )
        assert model_info.best_step == undisturbed_run[1].best_step

    def test_a_migrated_checkpoint_with_other_row_counts_is_refused(
        self, easy_dataset, unfinished_run
    ):
        path = unfinished_run / RunFile.CHECKPOINT
        dataset = checkpoint.read_checkpoint(path).state.dataset
        files = [[split, rows + 1, None] for split, rows, _ in dataset["files"]]
        change_state(path, dataset={**dataset, "files": files})
        message = get_training_error(
            DatasetError, easy_dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert "differs in files" in message

    def test_an_epoch_of_a_different_number_of_workers_is_refused(self, easy_dataset, tmp_path):
        unfinished_run = tmp_path / "run"
        with kill_after_checkpoints(2):
            train(str(easy_dataset), str(unfinished_run), make_config())
        path = unfinished_run / RunFile.CHECKPOINT
        change_state(path, workers=2)
        message = get_training_error(
            RunError, easy_dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert "is in the middle of epoch 1, which a different number of workers " in message
        assert message.endswith(" --workers 2")

    def test_a_checkpoint_with_a_changed_bit_is_refused(self, easy_dataset, unfinished_run):
        path = unfinished_run / RunFile.CHECKPOINT
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        message = get_training_error(
            RunError, easy_dataset, unfinished_run, load_own_config(unfinished_run), resume=True
        )
        assert message.startswith(f"{path}: is not a complete checkpoint (")

    def test_a_finished_run_is_not_changed(self, easy_dataset, undisturbed_run, caplog):
        folder, model_info = undisturbed_run
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with caplog.at_level("INFO"):
            assert (
                train(str(easy_dataset), str(folder), load_own_config(folder), resume=True)
                == model_info
            )
        assert caplog.messages == [f"{folder}: the run has ended already"]
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    @pytest.mark.parametrize(
        ("options", "kind", "differs"),
        [
            (["seed=6"], ConfigError, "the run was started with a different seed;"),
            (["model.temperature=9"], ConfigError, "the run ended with a temperature of "),
            (["inference.batch_size=3"], None, ""),
        ],
    )
    def test_a_finished_run_with_a_different_configuration_is_refused(
        self, easy_dataset, undisturbed_run, options, kind, differs
    ):
        if kind is None:
            assert (
                train(
                    str(easy_dataset), str(undisturbed_run[0]), make_config(*options), resume=True
                )
                == undisturbed_run[1]
            )
            return
        message = get_training_error(
            kind, easy_dataset, undisturbed_run[0], make_config(*options), resume=True
        )
        assert differs in message

    def test_a_missing_run_is_refused(self, tmp_path):
        with pytest.raises(RunError) as error:
            load_run_config(str(tmp_path / "typo"), None, ["seed=3"], resume=True)
        assert str(error.value).startswith(f"{tmp_path / 'typo'}: there is no run to resume; ")
        assert str(error.value).endswith(" without --resume")

    def test_a_run_without_a_checkpoint_starts_again_with_its_configuration(
        self, easy_dataset, undisturbed_run, tmp_path
    ):
        run = tmp_path / "run"
        with kill_before_first_step():
            train(str(easy_dataset), str(run), make_config())
        assert not (run / RunFile.CHECKPOINT).exists()
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(undisturbed_run[0])

    @pytest.mark.parametrize("is_finished", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_an_overwriting_run_without_a_checkpoint_is_resumed(
        self, easy_dataset, killed_run, undisturbed_run, tmp_path, is_finished
    ):
        config = make_config("seed=77", "training.epochs=1")
        train(str(easy_dataset), str(tmp_path / "other"), config)
        old_run = undisturbed_run[0] if is_finished else killed_run
        run = shutil.copytree(old_run, tmp_path / "run")
        with kill_before_first_step():
            train(str(easy_dataset), str(run), config, overwrite=True)
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "other")

    def test_a_loss_that_is_not_finite_ends_the_run_at_the_same_step_again(
        self, easy_dataset, tmp_path
    ):
        run = tmp_path / "run"
        diverging = make_config(
            *("training.optimizer.name=sgd", "training.optimizer.weight_decay=0"),
            *("training.optimizer.global_clipnorm=null", "training.optimizer.learning_rate=1e30"),
            *("training.validate_every_steps=30", "training.checkpoint_every_steps=1"),
        )
        with pytest.raises(RunError, match=r"^the loss is nan after \d steps") as error:
            train(str(easy_dataset), str(run), diverging)
        # The resumed run fails at the same step.
        with pytest.raises(RunError) as again:
            train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert str(again.value) == str(error.value)


@contextlib.contextmanager
def limit_file_size(byte_count: int) -> Iterator[None]:
    """Let writes in this block fail beyond a size, as on a full disk but with another errno."""
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (byte_count, old_limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)


class TestFullDisk:
    def test_the_message_names_the_checkpoint_that_cannot_be_written(self, easy_dataset, tmp_path):
        run = tmp_path / "run"
        with limit_file_size(20_000), pytest.raises(StorageError) as error:
            train(str(easy_dataset), str(run), make_config("model.name=system_a"))
        path = run / RunFile.CHECKPOINT
        assert str(error.value) == f"{path}: cannot be written: File too large"
        assert not path.exists()
        assert not list(run.glob("*.npz"))
