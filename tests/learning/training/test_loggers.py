import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tensorflow as tf

from fer_pipeline.config import load_config
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.loggers.mlflow import MLflow
from fer_pipeline.learning.training.loggers.tensorboard import TensorBoard

ROOT = Path(__file__).resolve().parents[3]
INITIAL = HistoryEntry(0, 0, None, None, 1.25, 0.125, 0.0625, 0.5)
FIRST = HistoryEntry(7, 1, 0.75, 0.5, 1.5, 0.25, 0.375, 0.25)
SECOND = HistoryEntry(14, 2, 0.625, 0.875, 1.0, 0.75, 0.5, 0.125)
UNVALIDATED = HistoryEntry(21, 3, 0.5, 0.25, None, None, None, 0.0625)
RESTART = HistoryEntry(7, 1, 0.25, 0.125, 2.0, 0.5, 0.25, 0.5, restart=1)
Points = dict[str, list[tuple[int, float]]]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.create(tmp_path / "run" / "history.csv")


def read_scalars(folder: Path) -> Points:
    """Return the points of all scalars in a folder of event files, by folder and tag."""
    scalars: Points = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for scalar in event.summary.value:
                # TensorBoard recognises scalars by these fields.
                assert scalar.metadata.plugin_data.plugin_name == "scalars"
                assert scalar.metadata.data_class == 1
                tag = f"{path.parent.relative_to(folder)}/{scalar.tag}"
                point = (event.step, tf.make_ndarray(scalar.tensor).item())
                scalars.setdefault(tag, []).append(point)
    return scalars


def start_tensorboard(run: Path, history: History) -> TensorBoard:
    """Return the callback of a run whose training has started."""
    callback = TensorBoard(run / "tensorboard", history)
    callback.on_train_begin()
    return callback


class TestTensorBoard:
    def test_each_entry_is_written_at_once(self, tmp_path, history):
        callback = start_tensorboard(tmp_path / "run", history)
        folder = tmp_path / "run" / "tensorboard"
        assert read_scalars(folder) == {}
        # The validation of the initial network is not an epoch of Keras.
        history.add(INITIAL)
        history.add(FIRST)
        callback.on_epoch_end(0)
        expected = {
            "train/epoch_loss": [(7, 0.75)],
            "train/epoch_accuracy": [(7, 0.5)],
            "train/epoch_learning_rate": [(0, 0.5), (7, 0.25)],
            "validation/epoch_loss": [(0, 1.25), (7, 1.5)],
            "validation/epoch_accuracy": [(0, 0.125), (7, 0.25)],
            "validation/epoch_mean_class_accuracy": [(0, 0.0625), (7, 0.375)],
        }
        assert read_scalars(folder) == expected
        history.add(UNVALIDATED)
        callback.on_epoch_end(1)
        callback.on_train_end()
        expected["train/epoch_loss"].append((21, 0.5))
        expected["train/epoch_accuracy"].append((21, 0.25))
        expected["train/epoch_learning_rate"].append((21, 0.0625))
        assert read_scalars(folder) == expected

    def test_a_resumed_run_writes_no_point_twice(self, tmp_path, history):
        folder = tmp_path / "run" / "tensorboard"
        killed = start_tensorboard(tmp_path / "run", history)
        for index, entry in enumerate((INITIAL, FIRST, SECOND)):
            history.add(entry)
            killed.on_epoch_end(index)
        # The checkpoint is one validation older, and the repeated validation gives another loss.
        resumed = History.create(tmp_path / "run" / "history.csv", [INITIAL, FIRST])
        again = start_tensorboard(tmp_path / "run", resumed)
        assert read_scalars(folder)["validation/epoch_loss"] == [(0, 1.25), (7, 1.5)]
        resumed.add(HistoryEntry(14, 2, 0.625, 0.875, 1.125, 0.75, 0.5, 0.125))
        again.on_epoch_end(1)
        again.on_train_end()
        assert read_scalars(folder)["validation/epoch_loss"] == [(0, 1.25), (7, 1.5), (14, 1.125)]
        assert read_scalars(folder)["train/epoch_loss"] == [(7, 0.75), (14, 0.625)]

    def test_each_restart_has_its_own_folder(self, tmp_path, history):
        callback = start_tensorboard(tmp_path / "run", history)
        history.add(FIRST)
        callback.on_epoch_end(0)
        callback.on_train_end()
        callback.on_train_begin()
        history.add(RESTART)
        callback.on_epoch_end(0)
        callback.on_train_end()
        scalars = read_scalars(tmp_path / "run" / "tensorboard")
        assert scalars["validation/epoch_accuracy"] == [(7, 0.25)]
        assert scalars["restart_1/validation/epoch_accuracy"] == [(7, 0.5)]
        assert scalars["restart_1/train/epoch_accuracy"] == [(7, 0.125)]

    def test_only_event_files_are_deleted(self, tmp_path, history):
        folder = tmp_path / "run" / "tensorboard"
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "notes.txt").write_text("mine")
        (folder / "train" / "events.out.tfevents.1.host.v2").write_text("older")
        start_tensorboard(tmp_path / "run", history)
        assert [path.name for path in folder.rglob("*.*")] == ["notes.txt"]

    def test_a_folder_that_cannot_be_written_is_an_error(self, tmp_path, history):
        history.add(INITIAL)
        (tmp_path / "run" / "tensorboard").write_text("a file")
        with pytest.raises(StorageError, match="tensorboard: cannot be written"):
            start_tensorboard(tmp_path / "run", history)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a store for all tests, because MLflow takes a few seconds to create one."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which MLflow puts its files by default."""
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "current"


def start_mlflow(history: History, *settings: str, resumed: bool = False) -> MLflow:
    """Return the callback of a run whose training has started, with its ID in mlflow.json."""
    callback = MLflow(
        Path("mlflow.json"),
        history,
        load_config(None, ["tracking.mlflow.enabled=true", *settings]),
        name="a run",
        dataset_checksum="fedcba9876543210",
        is_resumed=resumed,
    )
    callback.on_train_begin()
    return callback


class StoredExperiment:
    """The experiment of one test in the common store."""

    def __init__(self, store: str, name: str) -> None:
        self.client, self.name = mlflow.MlflowClient(store), name
        self._settings = (
            f"tracking.mlflow.uri={store}",
            f"tracking.mlflow.experiment={name}",
        )

    def start(self, history: History, *settings: str, resumed: bool = False) -> MLflow:
        """Return the callback of a run in this experiment whose training has started."""
        return start_mlflow(history, *self._settings, *settings, resumed=resumed)

    def list_runs(self) -> list[Any]:
        """Return the runs, the newest one first."""
        experiment = self.client.get_experiment_by_name(self.name)
        assert experiment is not None
        return self.client.search_runs([experiment.experiment_id])

    def read_metrics(self, run_id: str) -> Points:
        """Return the points of all metrics of a run, by name."""
        names = self.client.get_run(run_id).data.metrics
        histories = {name: self.client.get_metric_history(run_id, name) for name in names}
        return {name: [(p.step, p.value) for p in points] for name, points in histories.items()}


@pytest.fixture
def experiment(store: str, user_folder: Path, request: pytest.FixtureRequest) -> StoredExperiment:
    return StoredExperiment(store, request.node.originalname)


class TestMLflow:
    def test_a_run_from_start_to_end(self, experiment, history, tmp_path):
        callback = experiment.start(history)
        (run,) = experiment.list_runs()
        assert (run.info.run_id, run.info.status) == (callback.run_id, "RUNNING")
        for index, entry in enumerate((INITIAL, FIRST, UNVALIDATED)):
            history.add(entry)
            callback.on_epoch_end(index)
        (tmp_path / "model.keras").write_text("a model")
        callback.finish_run({"angry": 0.5, "disgust": None}, [tmp_path / "model.keras"])

        (run,) = experiment.list_runs()
        assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
        assert experiment.read_metrics(run.info.run_id) == {
            "epoch": [(0, 0), (7, 1), (21, 3)],
            "minibatch_loss": [(7, 0.75), (21, 0.5)],
            "minibatch_accuracy": [(7, 0.5), (21, 0.25)],
            "validation_loss": [(0, 1.25), (7, 1.5)],
            "validation_accuracy": [(0, 0.125), (7, 0.25)],
            "validation_mean_class_accuracy": [(0, 0.0625), (7, 0.375)],
            "learning_rate": [(0, 0.5), (7, 0.25), (21, 0.0625)],
            "validation_accuracy/angry": [(0, 0.5)],
        }
        (artifact,) = experiment.client.list_artifacts(run.info.run_id)
        path = experiment.client.download_artifacts(run.info.run_id, artifact.path)
        assert (artifact.path, Path(path).read_text()) == ("model.keras", "a model")

    def test_the_parameters_are_the_whole_configuration(self, experiment, history):
        settings = ["model.options={hidden: 16}", "split.usage_to_split.Own=null", "seed=5"]
        experiment.start(history, *settings)
        (run,) = experiment.list_runs()
        parameters = run.data.params
        expected = {
            "dataset_checksum": "fedcba9876543210",
            "seed": "5",
            "model.name": "system_a",
            "model.options": '{"hidden": 16}',
            "training.optimizer.learning_rate": "0.05",
            "image.normalization": "centered",
            "split.deduplicate": "true",
        }
        assert {name: parameters.get(name) for name in expected} == expected
        assert json.loads(parameters["split.usage_to_split"])["Own"] is None
        # All sections of the configuration except `tracking`.
        sections = load_config(None).to_dict()
        assert {name.partition(".")[0] for name in parameters} == (
            set(sections) - {"tracking"} | {"dataset_checksum"}
        )

    def test_a_killed_run_continues_the_run_in_mlflow(self, experiment, history, tmp_path):
        killed = experiment.start(history)
        for index, entry in enumerate((INITIAL, FIRST, SECOND)):
            history.add(entry)
            killed.on_epoch_end(index)
        # The checkpoint is one validation older, and the training is longer.
        resumed = History.create(tmp_path / "run" / "history.csv", [INITIAL, FIRST])
        again = experiment.start(resumed, "training.epochs=20", resumed=True)
        assert again.run_id == killed.run_id
        for index, entry in enumerate((SECOND, UNVALIDATED), 1):
            resumed.add(entry)
            again.on_epoch_end(index)
        again.finish_run({}, [])
        (run,) = experiment.list_runs()
        assert run.info.status == "FINISHED"
        assert run.data.params["training.epochs"] == "10"
        metrics = experiment.read_metrics(run.info.run_id)
        assert metrics["validation_loss"] == [(0, 1.25), (7, 1.5), (14, 1.0)]
        assert metrics["minibatch_loss"] == [(7, 0.75), (14, 0.625), (21, 0.5)]

    def test_a_failed_run_continues_the_run_in_mlflow(self, experiment, history):
        failed = experiment.start(history)
        failed.mark_run_failed()
        assert experiment.list_runs()[0].info.status == "FAILED"
        experiment.start(history, resumed=True)
        assert [run.info.status for run in experiment.list_runs()] == ["RUNNING"]

    def test_each_run_that_is_not_resumed_is_a_new_one(self, experiment, history):
        first, second = experiment.start(history), experiment.start(history)
        assert {run.info.run_id for run in experiment.list_runs()} == {first.run_id, second.run_id}
        assert json.loads(Path("mlflow.json").read_text()) == {"run_id": second.run_id}

    def test_a_resumed_run_that_mlflow_does_not_have_is_a_new_one(
        self, experiment, history, caplog
    ):
        first = experiment.start(history)
        Path("mlflow.json").write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
        second = experiment.start(history, resumed=True)
        assert "has no run with the ID in mlflow.json" in caplog.text
        Path("mlflow.json").unlink()
        third = experiment.start(history, resumed=True)
        assert len({first.run_id, second.run_id, third.run_id}) == len(experiment.list_runs()) == 3

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}'])
    def test_a_damaged_mlflow_json_is_refused(self, experiment, history, text):
        Path("mlflow.json").write_text(text)
        with pytest.raises(StorageError, match=r"mlflow\.json: is damaged; delete it"):
            experiment.start(history, resumed=True)

    def test_each_restart_has_its_own_metrics(self, experiment, history, tmp_path):
        callback = experiment.start(history)
        history.add(FIRST)
        callback.on_epoch_end(0)
        callback.on_train_begin()
        history.add(RESTART)
        callback.on_epoch_end(0)
        again = experiment.start(History.create(tmp_path / "again.csv", [FIRST]), resumed=True)
        again._history.add(RESTART)
        again.on_epoch_end(0)
        metrics = experiment.read_metrics(callback.run_id)
        assert metrics["validation_accuracy"] == [(7, 0.25)]
        assert metrics["restart_1/validation_accuracy"] == [(7, 0.5)]
        assert len(experiment.list_runs()) == 1

    def test_an_entry_that_mlflow_refuses_is_sent_with_the_next_one(
        self, store, experiment, history, caplog
    ):
        callback = experiment.start(history)
        history.add(FIRST)
        # The store has no table of metrics while this entry is sent.
        path = store.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("ALTER TABLE metrics RENAME TO gone")
            callback.on_epoch_end(0)
            connection.execute("ALTER TABLE gone RENAME TO metrics")
        assert (
            "MLflow did not accept metrics, which are sent again after the next validation"
            in caplog.text
        )
        assert experiment.read_metrics(callback.run_id) == {}
        history.add(SECOND)
        callback.on_epoch_end(1)
        assert experiment.read_metrics(callback.run_id)["validation_loss"] == [(7, 1.5), (14, 1.0)]


class TestMLflowErrors:
    @pytest.mark.parametrize(
        "uri",
        [
            "nonsense://somewhere",
            "sqlite:////proc/nowhere/mlflow.db",
            "sqlite:///garbage.db",
            "postgresql://me:secret@localhost/no_driver",
            "runs",
        ],
    )
    def test_an_unusable_store_is_refused(self, user_folder, history, uri):
        (user_folder / "garbage.db").write_text("this is no database, whatever its name says")
        with pytest.raises(ConfigError) as error:
            start_mlflow(history, f"tracking.mlflow.uri={uri}")
        message = str(error.value)
        public_uri = uri.replace("me:secret@", "")
        assert message.startswith(f"tracking.mlflow.uri: {public_uri} cannot be used: ")
        assert "secret" not in message
        assert "\n" not in message

    def test_a_missing_package_is_refused(self, user_folder, history, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(ConfigError) as error:
            start_mlflow(history)
        message = str(error.value)
        assert message.startswith("tracking.mlflow: MLflow is not installed")
        assert "pip install 'fer_pipeline[mlflow]'" in message
        assert "tracking.mlflow.enabled=false" in message


def test_nothing_leaves_the_machine_and_nothing_else_is_written(user_folder):
    """A separate process is needed, because MLflow sends nothing during a test anyway."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "watched = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname')\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, _: event in watched and seen.append(event))\n"
        "from fer_pipeline.config import load_config\n"
        "from fer_pipeline.learning.training.history import History, HistoryEntry\n"
        "from fer_pipeline.learning.training.loggers.mlflow import MLflow\n"
        "history = History.create(Path('history.csv'))\n"
        "config = load_config(None, ['tracking.mlflow.enabled=true'])\n"
        "callback = MLflow(Path('mlflow.json'), history, config, name='a', dataset_checksum='b',"
        " is_resumed=False)\n"
        "callback.on_train_begin()\n"
        "history.add(HistoryEntry(0, 0, None, None, 1.0, 0.5))\n"
        "callback.on_epoch_end(0)\n"
        "callback.finish_run({'angry': 0.5}, [Path('history.csv')])\n"
        "print(seen)\n"
    )
    removed = re.compile("PYTEST|CI$|GITHUB|MLFLOW|DO_NOT_TRACK")
    environment = {name: setting for name, setting in os.environ.items() if not removed.match(name)}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, "[]\n"), process.stderr
    assert "INFO" not in process.stderr
    assert sorted(path.name for path in user_folder.iterdir()) == [
        *("history.csv", "mlflow.db", "mlflow.json", "mlruns"),
    ]
