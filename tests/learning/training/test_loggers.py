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
DRAWN = HistoryEntry(0, 0, None, None, 1.25, 0.125, 0.0625, 0.5)
FIRST = HistoryEntry(7, 1, 0.75, 0.5, 1.5, 0.25, 0.375, 0.25)
SECOND = HistoryEntry(14, 2, 0.625, 0.875, 1.0, 0.75, 0.5, 0.125)
UNVALIDATED = HistoryEntry(21, 3, 0.5, 0.25, None, None, None, 0.0625)
RESTART = HistoryEntry(7, 1, 0.25, 0.125, 2.0, 0.5, 0.25, 0.5, restart=1)
Points = dict[str, list[tuple[int, float]]]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.create(tmp_path / "run" / "history.csv")


class TestTensorBoard:
    def events(self, folder: Path) -> Points:
        """Every scalar in a folder of event files, by folder and tag."""
        found: Points = {}
        for path in sorted(folder.rglob("events.out.tfevents.*")):
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                for value in event.summary.value:
                    # By these TensorBoard knows a scalar.
                    assert value.metadata.plugin_data.plugin_name == "scalars"
                    assert value.metadata.data_class == 1
                    tag = f"{path.parent.relative_to(folder)}/{value.tag}"
                    point = (event.step, tf.make_ndarray(value.tensor).item())
                    found.setdefault(tag, []).append(point)
        return found

    def callback(self, tmp_path: Path, history: History) -> TensorBoard:
        made = TensorBoard(tmp_path / "run" / "tensorboard", history)
        made.on_train_begin()
        return made

    def test_each_entry_is_written_at_once(self, tmp_path, history):
        made = self.callback(tmp_path, history)
        folder = tmp_path / "run" / "tensorboard"
        assert self.events(folder) == {}
        # The network as it was drawn is no epoch of Keras's.
        history.add(DRAWN)
        history.add(FIRST)
        made.on_epoch_end(0)
        expected = {
            "train/epoch_loss": [(7, 0.75)],
            "train/epoch_accuracy": [(7, 0.5)],
            "train/epoch_learning_rate": [(0, 0.5), (7, 0.25)],
            "validation/epoch_loss": [(0, 1.25), (7, 1.5)],
            "validation/epoch_accuracy": [(0, 0.125), (7, 0.25)],
            "validation/epoch_mean_class_accuracy": [(0, 0.0625), (7, 0.375)],
        }
        assert self.events(folder) == expected
        history.add(UNVALIDATED)
        made.on_epoch_end(1)
        made.on_train_end()
        expected["train/epoch_loss"].append((21, 0.5))
        expected["train/epoch_accuracy"].append((21, 0.25))
        expected["train/epoch_learning_rate"].append((21, 0.0625))
        assert self.events(folder) == expected

    def test_a_resumed_run_tells_nothing_twice(self, tmp_path, history):
        folder = tmp_path / "run" / "tensorboard"
        killed = self.callback(tmp_path, history)
        for index, made in enumerate((DRAWN, FIRST, SECOND)):
            history.add(made)
            killed.on_epoch_end(index)
        # The checkpoint is of one validation before; the second one gives another number now.
        resumed = History.create(tmp_path / "run" / "history.csv", [DRAWN, FIRST])
        again = self.callback(tmp_path, resumed)
        assert self.events(folder)["validation/epoch_loss"] == [(0, 1.25), (7, 1.5)]
        resumed.add(HistoryEntry(14, 2, 0.625, 0.875, 1.125, 0.75, 0.5, 0.125))
        again.on_epoch_end(1)
        again.on_train_end()
        assert self.events(folder)["validation/epoch_loss"] == [(0, 1.25), (7, 1.5), (14, 1.125)]
        assert self.events(folder)["train/epoch_loss"] == [(7, 0.75), (14, 0.625)]

    def test_each_restart_has_a_folder_of_its_own(self, tmp_path, history):
        made = self.callback(tmp_path, history)
        history.add(FIRST)
        made.on_epoch_end(0)
        made.on_train_end()
        made.on_train_begin()
        history.add(RESTART)
        made.on_epoch_end(0)
        made.on_train_end()
        found = self.events(tmp_path / "run" / "tensorboard")
        assert found["validation/epoch_accuracy"] == [(7, 0.25)]
        assert found["restart_1/validation/epoch_accuracy"] == [(7, 0.5)]
        assert found["restart_1/train/epoch_accuracy"] == [(7, 0.125)]

    def test_only_event_files_are_deleted(self, tmp_path, history):
        folder = tmp_path / "run" / "tensorboard"
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "notes.txt").write_text("mine")
        (folder / "train" / "events.out.tfevents.1.host.v2").write_text("older")
        self.callback(tmp_path, history)
        assert [path.name for path in folder.rglob("*.*")] == ["notes.txt"]

    def test_that_cannot_be_written(self, tmp_path, history):
        history.add(DRAWN)
        (tmp_path / "run" / "tensorboard").write_text("a file")
        with pytest.raises(StorageError, match="tensorboard: cannot be written"):
            self.callback(tmp_path, history)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a store for all tests: to make one takes MLflow a few seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's own, in which MLflow puts its files."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "here"


def begin(history: History, *settings: str, resumed: bool = False) -> MLflow:
    made = MLflow(
        Path("mlflow.json"),
        history,
        load_config(None, ["tracking.mlflow.enabled=true", *settings]),
        name="a run",
        dataset_checksum="fedcba9876543210",
        is_resumed=resumed,
    )
    made.on_train_begin()
    return made


class Looker:
    """Tracks runs in an experiment of one test's own, and looks at what is there."""

    def __init__(self, store: str, experiment: str) -> None:
        self.client, self.experiment = mlflow.MlflowClient(store), experiment
        self._settings = (
            f"tracking.mlflow.uri={store}",
            f"tracking.mlflow.experiment={experiment}",
        )

    def begin(self, history: History, *settings: str, resumed: bool = False) -> MLflow:
        return begin(history, *self._settings, *settings, resumed=resumed)

    def runs(self) -> list[Any]:
        found = self.client.get_experiment_by_name(self.experiment)
        return self.client.search_runs([found.experiment_id])

    def points(self, run_id: str) -> Points:
        names = self.client.get_run(run_id).data.metrics
        histories = {name: self.client.get_metric_history(run_id, name) for name in names}
        return {name: [(p.step, p.value) for p in found] for name, found in histories.items()}


@pytest.fixture
def looker(store: str, here: Path, request: pytest.FixtureRequest) -> Looker:
    return Looker(store, request.node.originalname)


class TestMLflow:
    def test_a_whole_run(self, looker, history, tmp_path):
        made = looker.begin(history)
        (run,) = looker.runs()
        assert (run.info.run_id, run.info.status) == (made.run_id, "RUNNING")
        for index, one in enumerate((DRAWN, FIRST, UNVALIDATED)):
            history.add(one)
            made.on_epoch_end(index)
        (tmp_path / "model.keras").write_text("a model")
        made.finish_run({"angry": 0.5, "disgust": None}, [tmp_path / "model.keras"])

        (run,) = looker.runs()
        assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
        assert looker.points(run.info.run_id) == {
            "epoch": [(0, 0), (7, 1), (21, 3)],
            "minibatch_loss": [(7, 0.75), (21, 0.5)],
            "minibatch_accuracy": [(7, 0.5), (21, 0.25)],
            "validation_loss": [(0, 1.25), (7, 1.5)],
            "validation_accuracy": [(0, 0.125), (7, 0.25)],
            "validation_mean_class_accuracy": [(0, 0.0625), (7, 0.375)],
            "learning_rate": [(0, 0.5), (7, 0.25), (21, 0.0625)],
            "validation_accuracy/angry": [(0, 0.5)],
        }
        (artifact,) = looker.client.list_artifacts(run.info.run_id)
        found = looker.client.download_artifacts(run.info.run_id, artifact.path)
        assert (artifact.path, Path(found).read_text()) == ("model.keras", "a model")

    def test_the_parameters_are_the_whole_configuration(self, looker, history):
        settings = ["model.options={hidden: 16}", "split.usage_to_split.Own=null", "seed=5"]
        looker.begin(history, *settings)
        (run,) = looker.runs()
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
        # Every key of the reference, but for where the run itself is written.
        sections = load_config(None).to_dict()
        assert {name.partition(".")[0] for name in parameters} == (
            set(sections) - {"tracking"} | {"dataset_checksum"}
        )

    def test_what_is_killed_goes_on_in_the_same_run(self, looker, history, tmp_path):
        killed = looker.begin(history)
        for index, one in enumerate((DRAWN, FIRST, SECOND)):
            history.add(one)
            killed.on_epoch_end(index)
        # The checkpoint is of one validation before; the length was changed.
        resumed = History.create(tmp_path / "run" / "history.csv", [DRAWN, FIRST])
        again = looker.begin(resumed, "training.epochs=20", resumed=True)
        assert again.run_id == killed.run_id
        for index, one in enumerate((SECOND, UNVALIDATED), 1):
            resumed.add(one)
            again.on_epoch_end(index)
        again.finish_run({}, [])
        (run,) = looker.runs()
        assert run.info.status == "FINISHED"
        assert run.data.params["training.epochs"] == "10"
        found = looker.points(run.info.run_id)
        assert found["validation_loss"] == [(0, 1.25), (7, 1.5), (14, 1.0)]
        assert found["minibatch_loss"] == [(7, 0.75), (14, 0.625), (21, 0.5)]

    def test_what_failed_is_resumed_too(self, looker, history):
        failed = looker.begin(history)
        failed.mark_run_failed()
        assert looker.runs()[0].info.status == "FAILED"
        looker.begin(history, resumed=True)
        assert [run.info.status for run in looker.runs()] == ["RUNNING"]

    def test_what_is_not_resumed_is_another_run(self, looker, history):
        first, second = looker.begin(history), looker.begin(history)
        assert {run.info.run_id for run in looker.runs()} == {first.run_id, second.run_id}
        assert json.loads(Path("mlflow.json").read_text()) == {"run_id": second.run_id}

    def test_a_resumed_run_without_a_record_is_another_one(self, looker, history, caplog):
        first = looker.begin(history)
        Path("mlflow.json").write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
        second = looker.begin(history, resumed=True)
        assert "has no run with the ID in mlflow.json" in caplog.text
        Path("mlflow.json").unlink()
        third = looker.begin(history, resumed=True)
        assert len({first.run_id, second.run_id, third.run_id}) == len(looker.runs()) == 3

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}'])
    def test_a_damaged_record(self, looker, history, text):
        Path("mlflow.json").write_text(text)
        with pytest.raises(StorageError, match=r"mlflow\.json: is damaged; delete it"):
            looker.begin(history, resumed=True)

    def test_each_restart_has_metrics_of_its_own(self, looker, history, tmp_path):
        made = looker.begin(history)
        history.add(FIRST)
        made.on_epoch_end(0)
        made.on_train_begin()
        history.add(RESTART)
        made.on_epoch_end(0)
        again = looker.begin(History.create(tmp_path / "again.csv", [FIRST]), resumed=True)
        again._history.add(RESTART)
        again.on_epoch_end(0)
        found = looker.points(made.run_id)
        assert found["validation_accuracy"] == [(7, 0.25)]
        assert found["restart_1/validation_accuracy"] == [(7, 0.5)]
        assert len(looker.runs()) == 1

    def test_an_entry_that_is_refused_is_sent_with_the_next(self, store, looker, history, caplog):
        made = looker.begin(history)
        history.add(FIRST)
        # For as long as this one entry takes, the store is not what MLflow needs.
        path = store.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("ALTER TABLE metrics RENAME TO gone")
            made.on_epoch_end(0)
            other.execute("ALTER TABLE gone RENAME TO metrics")
        assert (
            "MLflow did not accept metrics, which are sent again after the next validation"
            in caplog.text
        )
        assert looker.points(made.run_id) == {}
        history.add(SECOND)
        made.on_epoch_end(1)
        assert looker.points(made.run_id)["validation_loss"] == [(7, 1.5), (14, 1.0)]


class TestRefusals:
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
    def test_a_store_that_is_none(self, here, history, uri):
        (here / "garbage.db").write_text("this is no database, whatever its name says")
        with pytest.raises(ConfigError) as error:
            begin(history, f"tracking.mlflow.uri={uri}")
        message = str(error.value)
        shown = uri.replace("me:secret@", "")
        assert message.startswith(f"tracking.mlflow.uri: {shown} cannot be used: ")
        assert "secret" not in message
        assert "\n" not in message

    def test_it_is_not_installed(self, here, history, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(ConfigError) as error:
            begin(history)
        assert str(error.value) == (
            "tracking.mlflow: MLflow is not installed; pip install 'fer_pipeline[mlflow]', or"
            " leave it out with tracking.mlflow.enabled=false"
        )


def test_nothing_leaves_the_machine_and_nothing_else_is_written(here):
    """In a process of its own: MLflow looks for a test that runs, and is silent there anyway."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "asked = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname')\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, _: event in asked and seen.append(event))\n"
        "from fer_pipeline.config import load_config\n"
        "from fer_pipeline.learning.training.history import History, HistoryEntry\n"
        "from fer_pipeline.learning.training.loggers.mlflow import MLflow\n"
        "history = History.create(Path('history.csv'))\n"
        "chosen = load_config(None, ['tracking.mlflow.enabled=true'])\n"
        "made = MLflow(Path('mlflow.json'), history, chosen, name='a', dataset_checksum='b',"
        " is_resumed=False)\n"
        "made.on_train_begin()\n"
        "history.add(HistoryEntry(0, 0, None, None, 1.0, 0.5))\n"
        "made.on_epoch_end(0)\n"
        "made.finish_run({'angry': 0.5}, [Path('history.csv')])\n"
        "print(seen)\n"
    )
    ours = re.compile("PYTEST|CI$|GITHUB|MLFLOW|DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if not ours.match(name)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert "INFO" not in done.stderr
    assert sorted(path.name for path in here.iterdir()) == [
        *("history.csv", "mlflow.db", "mlflow.json", "mlruns"),
    ]
