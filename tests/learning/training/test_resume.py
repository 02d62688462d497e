"""Runs that were killed and go on, against runs that were not."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline.config import load_config
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.training import checkpoint, precision
from fer_pipeline.learning.training.training_run import TrainingRun
from fer_pipeline.pipelines.run_config import load_run_config
from fer_pipeline.pipelines.train import train

ROOT = Path(__file__).resolve().parents[3]
JOB = ROOT / "jobs" / "train.py"

# With all that has a state of its own: dropout's random numbers, BatchNormalization's statistics,
# Adam's moments, the average of the weights, the plateau's patience, drawn augmentations.
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
EVERYTHING = [
    *("seed=5", "loader.batch_size=23", "model.name=stateful.network"),
    *("training.epochs=6", "training.validate_every_steps=4", "training.checkpoint_every_steps=3"),
    *("training.optimizer.name=adamw", "training.optimizer.learning_rate=0.01"),
    *("training.optimizer.weight_decay=0.01", "training.optimizer.global_clipnorm=1"),
    *("training.schedule.kind=plateau", "training.schedule.patience=2"),
    *("training.schedule.min_delta=0.3", "training.early_stopping.monitor=val_loss"),
    *(
        "training.early_stopping.patience=50",
        "training.label_smoothing=0.1",
        "training.mixup_alpha=0.2",
    ),
    *(
        "training.ema_decay=0.9",
        "training.class_weights=balanced",
        "training.augmentation.flip=true",
    ),
    *("training.augmentation.rotation=10", "training.augmentation.random_erasing=0.5"),
]


@pytest.fixture(scope="module", autouse=True)
def network(tmp_path_factory):
    """A package of a user's own, which this process and its children can import."""
    folder = tmp_path_factory.mktemp("user")
    package = folder / "stateful"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "network.py").write_text(NETWORK)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def make_config(*overrides):
    return load_config(None, [*EVERYTHING, *overrides])


def make_arguments(*overrides):
    return [f"--set={one}" for one in (*EVERYTHING, *overrides)]


@pytest.fixture(scope="module")
def whole(easy_dataset, tmp_path_factory, network):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(str(easy_dataset), str(folder), make_config())


def load_own_config(run):
    """The configuration that a run is resumed with where none is given."""
    return load_run_config(str(run), None, [], resume=True)


def read_outputs(folder):
    """What two equal runs have in common, to the last bit; a .keras file holds the time."""
    names = ("history.csv", "model.weights.h5", "accuracy.png", "config.yaml")
    files = {path.name for path in folder.iterdir()}
    weights = [array.tobytes() for array in TrainedModel.open(folder).load_network().get_weights()]
    info = trained_model.read_model_info(folder).model_copy(update={"sha256": ""})
    texts = {name: (folder / name).read_bytes() for name in names if name != "model.weights.h5"}
    return files, weights, info, texts


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL."""


@contextlib.contextmanager
def kill_after(after):
    """Ends what is run within after so many checkpoints, if it gets so far."""
    write, left = checkpoint.write_checkpoint, [after]

    def write_and_end(*arguments):
        write(*arguments)
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_checkpoint", write_and_end)
        with contextlib.suppress(Killed):
            yield


def change_state(path, **fields):
    """Rewrite a checkpoint with other fields of its state."""
    stored = checkpoint.read_checkpoint(path)
    changed = replace(stored, state=stored.state.model_copy(update=fields))
    checkpoint.write_checkpoint(path, changed)


@contextlib.contextmanager
def fail_before_first_step():
    """Ends what is run within before its first step."""

    def end(*arguments, **options):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "run_restart", end)
        with contextlib.suppress(Killed):
            yield


class TestResumed:
    def test_after_each_of_the_checkpoints(self, easy_dataset, tmp_path, whole):
        folder, _ = whole
        run = tmp_path / "run"
        # One checkpoint after another is the last that a process makes.
        processes = 0
        while not (run / "model.json").exists():
            with kill_after(after=1):
                train(str(easy_dataset), str(run), make_config(), resume=processes > 0)
            processes += 1
        # Steps 3, 5, 9, 10, ...: every 3 steps, at the end of each epoch of 5, each validation.
        due = {step for step in range(1, 31) if step % 3 == 0 or step % 5 == 0 or step % 4 == 0}
        assert processes == len(due) + 1
        assert read_outputs(run) == read_outputs(folder)

    def test_in_the_middle_of_restarts(self, easy_dataset, tmp_path):
        settings = make_config("training.restarts=3", "training.epochs=2")
        whole = train(str(easy_dataset), str(tmp_path / "whole"), settings)
        run = tmp_path / "run"
        for after in (2, 6, 7):
            with kill_after(after):
                train(str(easy_dataset), str(run), settings, resume=run.exists())
        found = train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "whole")
        assert found.best_restart == whole.best_restart
        rows = (run / "history.csv").read_text().splitlines()[1:]
        assert [row.split(",")[-2] for row in rows] == [t for t in "012" for _ in range(4)]

    def test_that_was_stopped_early(self, easy_dataset, tmp_path):
        # It stops at its third validation; a process that takes it up there makes no further step.
        early = make_config(
            "training.early_stopping.patience=1", "training.early_stopping.min_delta=99"
        )
        train(str(easy_dataset), str(tmp_path / "whole"), early)
        rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
        assert len(rows) == 4
        run = tmp_path / "run"
        with kill_after(after=4):
            train(str(easy_dataset), str(run), early)
        train(str(easy_dataset), str(run), early, resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "whole")

    def test_in_a_precision_that_auto_would_not_choose_here(
        self, easy_dataset, tmp_path, monkeypatch
    ):
        mixed = make_config("training.precision=auto", "training.epochs=2")
        monkeypatch.setattr(precision, "_supports_bfloat16", lambda: True)
        whole = train(str(easy_dataset), str(tmp_path / "whole"), mixed)
        assert whole.precision == "mixed_bfloat16"
        run = tmp_path / "run"
        with kill_after(after=2):
            train(str(easy_dataset), str(run), mixed)
        # As on another machine.
        monkeypatch.setattr(precision, "_supports_bfloat16", lambda: False)
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "whole")
        assert keras.config.dtype_policy().name == "float32"

    def test_with_a_cache_and_a_schedule_by_step(self, easy_dataset, tmp_path):
        settings = make_config(
            *("loader.cache_in_memory=true", "training.schedule.kind=cosine", "training.epochs=3"),
            "training.schedule.warmup_epochs=1",
        )
        train(str(easy_dataset), str(tmp_path / "whole"), settings)
        run = tmp_path / "run"
        for after in (2, 3):
            with kill_after(after):
                train(str(easy_dataset), str(run), settings, resume=run.exists())
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "whole")

    def test_with_teachers(self, easy_dataset, tmp_path, whole):
        names = [str(tmp_path / name) for name in ("one", "other")]
        shutil.copytree(whole[0], names[0])
        train(str(easy_dataset), names[1], make_config("training.epochs=1"))
        taught = [f"training.distillation.teachers=[{', '.join(names)}]", "training.epochs=3"]
        train(str(easy_dataset), str(tmp_path / "whole"), make_config(*taught))
        run = tmp_path / "run"
        for after in (2, 3):
            with kill_after(after):
                train(str(easy_dataset), str(run), make_config(*taught), resume=run.exists())
        left = tmp_path / "left"
        shutil.copytree(run, left)
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(tmp_path / "whole")
        train(str(easy_dataset), names[1], make_config("training.epochs=2"), overwrite=True)
        with pytest.raises(RunError) as error:
            train(str(easy_dataset), str(left), load_own_config(left), resume=True)
        assert str(error.value).startswith(f"{left}: the model of {names[1]} has changed since ")
        assert str(error.value).endswith("; start again with --overwrite")

    def test_from_anywhere_in_its_publication(self, easy_dataset, tmp_path, whole):
        """A process that ends at any of the writes, and one that goes on from there."""
        short = make_config("training.epochs=null", "training.steps=1")
        writes = ("remove", "remove_folder", "move", "write_text")
        for number in range(40):
            run = tmp_path / str(number)
            with pytest.MonkeyPatch.context() as patch:
                left = [number]
                for name in writes:
                    patch.setattr(
                        storage, name, self.kill_after_calls(getattr(storage, name), left)
                    )
                try:
                    train(str(easy_dataset), str(run), short)
                except Killed:
                    pass
                else:
                    break
            train(str(easy_dataset), str(run), short, resume=True)
            first = read_outputs(tmp_path / "0")
            assert read_outputs(run) == first
        assert number > 8

    def kill_after_calls(self, write, left):
        def counting(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return write(*arguments, **options)

        return counting


def start_job(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, str(JOB), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class TestKilled:
    def test_at_any_time(self, easy_dataset, tmp_path, network):
        """Real processes, real SIGKILL, at moments that nobody chose."""
        settings = make_arguments("training.epochs=60", "training.validate_every_steps=16")
        begin = ["--dataset", easy_dataset, "--output"]
        whole, run = tmp_path / "whole", tmp_path / "run"
        undisturbed = start_job(*begin, whole, *settings, cwd=network)
        moments = np.random.default_rng(int(time.time() * 1000))
        first = start_job(*begin, run, *settings, cwd=network)
        kills = 0
        running = first
        while kills < 3:
            marked = (run / RunFile.CHECKPOINT).stat().st_mtime_ns if kills else 0
            while running.poll() is None and not self.is_newer(run / RunFile.CHECKPOINT, marked):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.5))
            assert running.poll() is None, running.stdout.read()
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            running.stdout.close()
            kills += 1
            assert not (run / "model.json").exists()
            running = start_job(*begin, run, "--resume", cwd=network)
        said, _ = running.communicate(timeout=200)
        assert running.returncode == 0, said
        assert "resuming after step " in said
        said, _ = undisturbed.communicate(timeout=200)
        assert undisturbed.returncode == 0, said
        assert "resuming after" not in said
        assert read_outputs(run) == read_outputs(whole)

    def is_newer(self, path, than):
        try:
            return path.stat().st_mtime_ns > than
        except FileNotFoundError:
            return False


class TestRefusals:
    @pytest.fixture
    def unfinished(self, easy_dataset, tmp_path):
        with kill_after(after=3):
            train(str(easy_dataset), str(tmp_path / "run"), make_config())
        return tmp_path / "run"

    def get_refusal(self, kind, *arguments, **options):
        with pytest.raises(kind) as error:
            train(*map(str, arguments[:2]), *arguments[2:], **options)
        message = str(error.value)
        assert "\n" not in message
        return message

    def test_an_unfinished_run_is_not_lost_unasked(self, easy_dataset, unfinished):
        message = self.get_refusal(StorageError, easy_dataset, unfinished, make_config())
        assert message == (
            f"{unfinished}: holds an unfinished run; --resume continues it, --overwrite starts anew"
        )
        train(str(easy_dataset), str(unfinished), make_config("training.epochs=1"), overwrite=True)
        assert not (unfinished / RunFile.CHECKPOINT).exists()
        assert len((unfinished / "history.csv").read_text().splitlines()) == 4

    def test_another_configuration(self, easy_dataset, unfinished):
        other = make_config("training.optimizer.learning_rate=0.5", "training.epochs=7")
        message = self.get_refusal(ConfigError, easy_dataset, unfinished, other, resume=True)
        assert message == (
            f"{unfinished}: the run was started with a different training.epochs,"
            " training.optimizer.learning_rate; resume it without --config and --set, or start"
            " again with --overwrite"
        )

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
    def test_another_dataset(self, easy_dataset, unfinished, tmp_path, change, differs):
        data = tmp_path / "other"
        shutil.copytree(easy_dataset, data)
        manifest = data / "manifest.json"
        manifest.write_text(change(manifest.read_text()))
        message = self.get_refusal(
            DatasetError, data, unfinished, load_own_config(unfinished), resume=True
        )
        assert message == (
            f"{data}: is not the dataset with which the run in {unfinished} was started (it"
            f" differs in {differs}); start again with --overwrite"
        )

    def test_the_same_rows_in_other_row_groups(
        self, unfinished, write_dataset, bright_and_dark, tmp_path
    ):
        # As the easy dataset, but for the layout: its epoch under way would lose rows.
        sizes = {"train": 115, "validation": 40, "test": 20}
        splits = {name: bright_and_dark(n, 10 + n) for name, n in sizes.items()}
        data = write_dataset(tmp_path / "other", splits, layout=((50,), (65,)))
        message = self.get_refusal(
            DatasetError, data, unfinished, load_own_config(unfinished), resume=True
        )
        assert "(it differs in files)" in message

    def test_what_has_no_bearing_on_the_result_may_change(self, easy_dataset, unfinished, whole):
        other = make_config(
            *("inference.batch_size=7", "training.checkpoint_every_steps=2"),
            "tracking.tensorboard=false",
        )
        train(str(easy_dataset), str(unfinished), other, resume=True)
        files, weights, info, _ = read_outputs(unfinished)
        expected, same, about, _ = read_outputs(whole[0])
        assert (files | {"tensorboard"}, weights, info) == (expected, same, about)
        assert not (unfinished / "tensorboard").exists()

    def test_a_temperature_that_is_known_by_then(self, easy_dataset, unfinished, whole):
        info = train(
            str(easy_dataset), str(unfinished), make_config("model.temperature=1.5"), resume=True
        )
        assert info.temperature == 1.5 != whole[1].temperature
        files, weights, _, _ = read_outputs(unfinished)
        expected, same, _, _ = read_outputs(whole[0])
        assert (set(files), weights) == (set(expected), same)

    @pytest.mark.parametrize("length", [0, 1, 100, -1, -100])
    def test_a_torn_checkpoint(self, easy_dataset, unfinished, length):
        path = unfinished / RunFile.CHECKPOINT
        path.write_bytes(path.read_bytes()[:length])
        message = self.get_refusal(
            RunError, easy_dataset, unfinished, load_own_config(unfinished), resume=True
        )
        assert message.startswith(f"{path}: is not a complete checkpoint (")
        assert message.endswith("; start again with --overwrite")

    def test_a_checkpoint_of_an_older_version(self, easy_dataset, unfinished):
        path = unfinished / RunFile.CHECKPOINT
        with np.load(path) as file:
            entries = {name: file[name] for name in file.files}
        document = json.loads(entries["notes.json"].tobytes())
        older = json.dumps({**document, "format_version": 1})
        entries["notes.json"] = np.frombuffer(older.encode(), np.uint8)
        np.savez(path, **entries)
        message = self.get_refusal(
            RunError, easy_dataset, unfinished, load_own_config(unfinished), resume=True
        )
        assert message.endswith(f"; convert it with scripts/migrate-run {unfinished}")

    def test_a_run_of_an_older_version_that_is_resumed(self, unfinished):
        path = unfinished / "unfinished.yaml"
        path.write_text(path.read_text().replace("loader:", "feed:"))
        with pytest.raises(RunError, match=rf"scripts/migrate-run {unfinished}$"):
            load_run_config(str(unfinished), None, [], resume=True)

    def test_a_migrated_checkpoint_goes_on_with_files_of_other_sizes(
        self, easy_dataset, unfinished, whole
    ):
        path = unfinished / RunFile.CHECKPOINT
        dataset = checkpoint.read_checkpoint(path).state.dataset
        files = [[split, rows, None] for split, rows, _ in dataset["files"]]
        change_state(path, dataset={**dataset, "files": files})
        info = train(str(easy_dataset), str(unfinished), load_own_config(unfinished), resume=True)
        assert info.best_step == whole[1].best_step

    def test_a_migrated_checkpoint_is_of_files_with_as_many_rows(self, easy_dataset, unfinished):
        path = unfinished / RunFile.CHECKPOINT
        dataset = checkpoint.read_checkpoint(path).state.dataset
        files = [[split, rows + 1, None] for split, rows, _ in dataset["files"]]
        change_state(path, dataset={**dataset, "files": files})
        message = self.get_refusal(
            DatasetError, easy_dataset, unfinished, load_own_config(unfinished), resume=True
        )
        assert "differs in files" in message

    def test_an_epoch_that_another_number_of_workers_has_begun(self, easy_dataset, tmp_path):
        unfinished = tmp_path / "run"
        with kill_after(after=2):
            train(str(easy_dataset), str(unfinished), make_config())
        path = unfinished / RunFile.CHECKPOINT
        change_state(path, workers=2)
        message = self.get_refusal(
            RunError, easy_dataset, unfinished, load_own_config(unfinished), resume=True
        )
        assert "is in the middle of epoch 1, which a different number of workers " in message
        assert message.endswith(" --workers 2")

    def test_a_checkpoint_with_a_bit_changed(self, easy_dataset, unfinished):
        path = unfinished / RunFile.CHECKPOINT
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        message = self.get_refusal(
            RunError, easy_dataset, unfinished, load_own_config(unfinished), resume=True
        )
        assert message.startswith(f"{path}: is not a complete checkpoint (")

    def test_a_finished_run_is_left_as_it_is(self, easy_dataset, whole, caplog):
        folder, info = whole
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with caplog.at_level("INFO"):
            assert (
                train(str(easy_dataset), str(folder), load_own_config(folder), resume=True) == info
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
    def test_a_finished_run_is_the_one_that_is_meant(
        self, easy_dataset, whole, options, kind, differs
    ):
        if kind is None:
            assert (
                train(str(easy_dataset), str(whole[0]), make_config(*options), resume=True)
                == whole[1]
            )
            return
        message = self.get_refusal(kind, easy_dataset, whole[0], make_config(*options), resume=True)
        assert differs in message

    def test_nothing_to_resume(self, tmp_path):
        with pytest.raises(RunError) as error:
            load_run_config(str(tmp_path / "typo"), None, ["seed=3"], resume=True)
        assert str(error.value) == (
            f"{tmp_path / 'typo'}: there is no run to resume; start one without --resume"
        )

    def test_what_has_no_checkpoint_yet_begins_again_as_it_was(self, easy_dataset, whole, tmp_path):
        run = tmp_path / "run"
        with fail_before_first_step():
            train(str(easy_dataset), str(run), make_config())
        assert not (run / RunFile.CHECKPOINT).exists()
        train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert read_outputs(run) == read_outputs(whole[0])

    def test_an_overwrite_that_was_killed_at_once_is_what_is_resumed(
        self, easy_dataset, unfinished, whole, tmp_path
    ):
        other = make_config("seed=77", "training.epochs=2")
        train(str(easy_dataset), str(tmp_path / "other"), other)
        finished = tmp_path / "finished"
        shutil.copytree(whole[0], finished)
        for run in (unfinished, finished):
            with fail_before_first_step():
                train(str(easy_dataset), str(run), other, overwrite=True)
            train(str(easy_dataset), str(run), load_own_config(run), resume=True)
            assert read_outputs(run) == read_outputs(tmp_path / "other")

    def test_a_loss_that_is_no_number_is_not_kept(self, easy_dataset, tmp_path):
        run = tmp_path / "run"
        bad = make_config(
            *("training.optimizer.name=sgd", "training.optimizer.weight_decay=0"),
            *("training.optimizer.global_clipnorm=null", "training.optimizer.learning_rate=1e30"),
            *("training.validate_every_steps=30", "training.checkpoint_every_steps=1"),
        )
        with pytest.raises(RunError, match=r"^the loss is nan after \d steps") as error:
            train(str(easy_dataset), str(run), bad)
        # Resumed, it says the same of the same step.
        with pytest.raises(RunError) as again:
            train(str(easy_dataset), str(run), load_own_config(run), resume=True)
        assert str(again.value) == str(error.value)


class TestFullDisk:
    def test_says_so_and_keeps_the_last_checkpoint(self, easy_dataset, tmp_path, network):
        """A limit on the size of a file fails a write as a full disk does, with another number."""
        code = (
            "import resource, runpy, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            f"sys.argv = [{str(JOB)!r}, *sys.argv[1:]]\n"
            f"runpy.run_path({str(JOB)!r}, run_name='__main__')\n"
        )
        places = ["--dataset", str(easy_dataset), "--output", str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-c", code, *places, *make_arguments("model.name=system_a")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(network)])},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 1
        path = tmp_path / "run" / RunFile.CHECKPOINT
        assert done.stderr.splitlines()[-1] == f"error: {path}: cannot be written: File too large"
        assert not path.exists()
        assert not list((tmp_path / "run").glob("*.npz"))
