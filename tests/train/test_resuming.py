"""Runs that were killed and go on, against runs that were not."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline import config
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.learning import bundle, checkpoint
from fer_pipeline.stages.train import train

ROOT = Path(__file__).resolve().parents[2]
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
    *("seed=5", "feed.batch_size=23", "model.name=stateful.network"),
    *("training.epochs=6", "training.validate_every=4", "training.checkpoint_every=3"),
    *("training.optimizer.name=adamw", "training.optimizer.learning_rate=0.01"),
    *("training.optimizer.weight_decay=0.01", "training.optimizer.clip_norm=1"),
    *("training.schedule.kind=plateau", "training.schedule.patience=2"),
    *("training.schedule.min_delta=0.3", "training.early_stopping.monitor=val_loss"),
    *("training.early_stopping.patience=50", "training.label_smoothing=0.1", "training.mixup=0.2"),
    *("training.average=0.9", "training.class_weights=balanced", "training.augmentation.flip=true"),
    *("training.augmentation.rotation=10", "training.augmentation.erasing=0.5"),
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


def chosen(*overrides):
    return config.load(None, [*EVERYTHING, *overrides])


def arguments(*overrides):
    return [f"--set={one}" for one in (*EVERYTHING, *overrides)]


@pytest.fixture(scope="module")
def whole(easy_dataset, tmp_path_factory, network):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(str(easy_dataset), str(folder), chosen())


def outputs(folder):
    """What two equal runs have in common, to the last bit; a .keras file holds the time."""
    names = ("history.csv", "model.weights.h5", "accuracy.png", "config.yaml")
    files = {path.name for path in folder.iterdir()}
    weights = [array.tobytes() for array in bundle.load(folder)[0].get_weights()]
    info = bundle.read(folder).model_copy(update={"sha256": ""})
    texts = {name: (folder / name).read_bytes() for name in names if name != "model.weights.h5"}
    return files, weights, info, texts


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL."""


@contextlib.contextmanager
def killed(after):
    """Ends what is run within after so many checkpoints, if it gets so far."""
    write, left = checkpoint.write, [after]

    def write_and_end(*arguments):
        write(*arguments)
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", write_and_end)
        with contextlib.suppress(Killed):
            yield


class TestResumed:
    def test_after_each_of_the_checkpoints(self, easy_dataset, tmp_path, whole):
        folder, _ = whole
        run = tmp_path / "run"
        # One checkpoint after another is the last that a process makes.
        processes = 0
        while not (run / "model.json").exists():
            with killed(after=1):
                train(str(easy_dataset), str(run), chosen(), resume=processes > 0)
            processes += 1
        # Steps 3, 5, 9, 10, ...: every 3 steps, at the end of each epoch of 5 and of each round.
        due = {step for step in range(1, 31) if step % 3 == 0 or step % 5 == 0 or step % 4 == 0}
        assert processes == len(due) + 1
        assert outputs(run) == outputs(folder)

    def test_in_the_middle_of_trials(self, easy_dataset, tmp_path):
        settings = chosen("training.trials=3", "training.epochs=2")
        whole = train(str(easy_dataset), str(tmp_path / "whole"), settings)
        run = tmp_path / "run"
        for after in (2, 6, 7):
            with killed(after):
                train(str(easy_dataset), str(run), settings, resume=run.exists())
        found = train(str(easy_dataset), str(run), None, resume=True)
        assert outputs(run) == outputs(tmp_path / "whole")
        assert found.best_trial == whole.best_trial
        rows = (run / "history.csv").read_text().splitlines()[1:]
        assert [row.rpartition(",")[2] for row in rows] == [t for t in "012" for _ in range(4)]

    def test_that_was_stopped_early(self, easy_dataset, tmp_path):
        # It stops in its third round; a process that takes it up there makes no further step.
        early = chosen("training.early_stopping.patience=1", "training.early_stopping.min_delta=99")
        train(str(easy_dataset), str(tmp_path / "whole"), early)
        rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
        assert len(rows) == 4
        run = tmp_path / "run"
        with killed(after=4):
            train(str(easy_dataset), str(run), early)
        train(str(easy_dataset), str(run), early, resume=True)
        assert outputs(run) == outputs(tmp_path / "whole")

    def test_in_bfloat16(self, easy_dataset, tmp_path):
        mixed = chosen("training.precision=mixed_bfloat16", "training.epochs=2")
        whole = train(str(easy_dataset), str(tmp_path / "whole"), mixed)
        assert whole.precision == "mixed_bfloat16"
        run = tmp_path / "run"
        with killed(after=2):
            train(str(easy_dataset), str(run), mixed)
        train(str(easy_dataset), str(run), None, resume=True)
        assert outputs(run) == outputs(tmp_path / "whole")
        assert keras.config.dtype_policy().name == "float32"


def resume(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, str(JOB), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
class TestKilled:
    def test_at_any_time(self, easy_dataset, tmp_path, network):
        """Real processes, real SIGKILL, at moments that nobody chose."""
        settings = arguments("training.epochs=60", "training.validate_every=16")
        begin = ["--dataset", easy_dataset, "--output"]
        whole, run = tmp_path / "whole", tmp_path / "run"
        undisturbed = resume(*begin, whole, *settings, cwd=network)
        moments = np.random.default_rng(int(time.time() * 1000))
        first = resume(*begin, run, *settings, cwd=network)
        kills = 0
        running = first
        while kills < 3:
            marked = (run / checkpoint.NAME).stat().st_mtime_ns if kills else 0
            while running.poll() is None and not self.newer(run / checkpoint.NAME, marked):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.5))
            assert running.poll() is None, running.stdout.read()
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            running.stdout.close()
            kills += 1
            assert not (run / "model.json").exists()
            running = resume(*begin, run, "--resume", cwd=network)
        said, _ = running.communicate(timeout=200)
        assert running.returncode == 0, said
        assert "goes on after step " in said
        said, _ = undisturbed.communicate(timeout=200)
        assert undisturbed.returncode == 0, said
        assert "goes on" not in said
        assert outputs(run) == outputs(whole)

    def newer(self, path, than):
        try:
            return path.stat().st_mtime_ns > than
        except FileNotFoundError:
            return False


class TestRefusals:
    @pytest.fixture
    def unfinished(self, easy_dataset, tmp_path):
        with killed(after=3):
            train(str(easy_dataset), str(tmp_path / "run"), chosen())
        return tmp_path / "run"

    def refused(self, kind, *arguments, **options):
        with pytest.raises(kind) as error:
            train(*map(str, arguments[:2]), *arguments[2:], **options)
        message = str(error.value)
        assert "\n" not in message
        return message

    def test_an_unfinished_run_is_not_lost_unasked(self, easy_dataset, unfinished):
        message = self.refused(StorageError, easy_dataset, unfinished, chosen())
        assert message == (
            f"{unfinished}: holds an unfinished run; --resume continues it, --overwrite begins anew"
        )
        train(str(easy_dataset), str(unfinished), chosen("training.epochs=1"), overwrite=True)
        assert not (unfinished / checkpoint.NAME).exists()
        assert len((unfinished / "history.csv").read_text().splitlines()) == 4

    def test_another_configuration(self, easy_dataset, unfinished):
        other = chosen("training.optimizer.learning_rate=0.5", "training.epochs=7")
        message = self.refused(ConfigError, easy_dataset, unfinished, other, resume=True)
        assert message == (
            f"{unfinished}: the run was begun with another training.epochs,"
            " training.optimizer.learning_rate; resume it without --config and --set, or begin"
            " anew with --overwrite"
        )

    def test_another_dataset(self, unfinished, write_dataset, bright_and_dark, tmp_path):
        data = write_dataset(tmp_path / "other", {"train": bright_and_dark(50, 3)})
        manifest = data / "manifest.json"
        manifest.write_text(manifest.read_text().replace("fedcba9876543210", "0" * 16))
        message = self.refused(DatasetError, data, unfinished, None, resume=True)
        assert message == (
            f"{data}: is not the dataset that the run in {unfinished} was begun on (checksum"
            f" {'0' * 16}, begun on fedcba9876543210)"
        )

    @pytest.mark.parametrize("length", [0, 1, 100, -1, -100])
    def test_a_torn_checkpoint(self, easy_dataset, unfinished, length):
        path = unfinished / checkpoint.NAME
        path.write_bytes(path.read_bytes()[:length])
        message = self.refused(RunError, easy_dataset, unfinished, None, resume=True)
        assert message.startswith(f"{path}: is no whole checkpoint (")
        assert message.endswith("; --overwrite begins anew")

    def test_a_checkpoint_with_a_bit_changed(self, easy_dataset, unfinished):
        path = unfinished / checkpoint.NAME
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        message = self.refused(RunError, easy_dataset, unfinished, None, resume=True)
        assert message.startswith(f"{path}: is no whole checkpoint (")

    def test_a_finished_run_is_left_as_it_is(self, easy_dataset, whole, caplog):
        folder, info = whole
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        with caplog.at_level("INFO"):
            assert train(str(easy_dataset), str(folder), None, resume=True) == info
        assert caplog.messages == [f"{folder}: is finished already"]
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_what_has_no_checkpoint_yet_begins(self, easy_dataset, whole, tmp_path):
        train(str(easy_dataset), str(tmp_path / "run"), chosen(), resume=True)
        assert outputs(tmp_path / "run") == outputs(whole[0])


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
            [sys.executable, "-c", code, *places, *arguments()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(network)])},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert done.returncode == 1
        path = tmp_path / "run" / checkpoint.NAME
        assert done.stderr.splitlines()[-1] == f"error: {path}: cannot be written: File too large"
        assert not path.exists()
        assert not list((tmp_path / "run").glob("*.npz"))
