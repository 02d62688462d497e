"""Datasets, runs and reports in an object store: a real client, and a server on the loopback."""

import subprocess
import sys

import pytest

from fer_pipeline import manifest, storage
from fer_pipeline.config import load_config
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.learning.data.feed import Feed
from fer_pipeline.learning.model import bundle, run_folder
from fer_pipeline.learning.training import checkpoint
from fer_pipeline.stages.evaluate import evaluate
from fer_pipeline.stages.train import train
from tests.object_store import BUCKET, names, served


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket."""
    with served():
        yield BUCKET


@pytest.fixture(scope="module")
def dataset(bucket, easy_dataset):
    """The easy dataset, there."""
    for file in easy_dataset.rglob("*"):
        if file.is_file():
            storage.copy(file, storage.path(f"{bucket}/easy/{file.relative_to(easy_dataset)}"))
    return f"{bucket}/easy"


def chosen(*overrides):
    options = ("loader.batch_size=23", "model.options.hidden=8", "training.epochs=3")
    return load_config(None, [*options, "training.optimizer.learning_rate=0.02", *overrides])


@pytest.fixture(scope="module")
def runs(bucket, dataset, easy_dataset, tmp_path_factory):
    """The same run, there and on a disk."""
    local = tmp_path_factory.mktemp("run") / "run"
    train(str(easy_dataset), str(local), chosen())
    train(dataset, f"{bucket}/run", chosen())
    return f"{bucket}/run", local


class TestFeed:
    @pytest.mark.parametrize("options", [{}, {"shards": 2, "shard": 1}, {"cache_in_memory": True}])
    def test_is_that_of_a_disk(self, dataset, easy_dataset, options):
        def batches(folder):
            feed = Feed(folder, "train", 16, shuffle=True, seed=4, **options)
            return [(a.numpy().tobytes(), b.numpy().tolist()) for a, b in feed.epoch(1)]

        assert batches(storage.path(dataset)) == batches(easy_dataset)

    def test_a_file_that_is_missing(self, bucket, dataset):
        copy = f"{bucket}/torn"
        for name in names(dataset):
            part = storage.path(f"{dataset}/{name}")
            if not name.endswith("parquet"):
                storage.write_text(storage.path(f"{copy}/{name}"), storage.read_text(part))
        with pytest.raises(DatasetError, match="is missing, the manifest says"):
            Feed(storage.path(copy), "train", 16, shuffle=True, seed=0)


class TestRuns:
    def test_have_the_same_files_and_weights(self, runs):
        there, local = runs
        assert {name for name in names(there) if "tfevents" not in name} == {
            str(path.relative_to(local))
            for path in local.rglob("*")
            if path.is_file() and "tfevents" not in path.name
        }
        assert any("tfevents" in name for name in names(there))
        for name in ("history.csv", "config.yaml"):
            assert storage.read_text(storage.path(f"{there}/{name}")) == (local / name).read_text()
        weights = [bundle.load(storage.path(run))[0].get_weights() for run in runs]
        for one, other in zip(*weights, strict=True):
            assert one.tobytes() == other.tobytes()

    def test_are_not_replaced_unasked(self, runs, dataset):
        with pytest.raises(StorageError, match="holds a finished training run already"):
            train(dataset, runs[0], chosen())

    def test_that_are_killed_are_resumed(self, bucket, dataset, runs):
        there, write = f"{bucket}/killed", checkpoint.write

        class Killed(BaseException):
            pass

        def write_and_end(*arguments):
            write(*arguments)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "write", write_and_end)
            with pytest.raises(Killed):
                train(dataset, there, chosen())
        assert {".unfinished", "checkpoint.npz", "unfinished.csv"} <= names(there)
        with pytest.raises(RunError, match="its training has not finished"):
            run_folder.read(storage.path(there))
        train(dataset, there, chosen(), resume=True)
        whole = storage.read_text(storage.path(f"{runs[0]}/history.csv"))
        assert storage.read_text(storage.path(f"{there}/history.csv")) == whole
        assert not {".unfinished", "checkpoint.npz", "unfinished.csv"} & names(there)

    def test_are_evaluated(self, bucket, dataset, easy_dataset, runs, tmp_path):
        report, settings = tmp_path / "report", load_config(None)
        there = evaluate(runs[0], dataset, "test", f"{bucket}/report", settings)
        local = evaluate(runs[1], easy_dataset, "test", report, settings)
        assert there.metrics == local.metrics
        assert names(f"{bucket}/report") == {path.name for path in report.iterdir()}

    def test_a_bucket_that_there_is_not(self, dataset):
        with pytest.raises(FerError) as error:
            train(dataset, "s3://none/run", chosen())
        message = str(error.value)
        assert message.startswith("s3://none/run")
        assert "\n" not in message


def test_a_manifest_is_read_from_there(dataset, easy_dataset):
    assert manifest.read(storage.path(dataset)) == manifest.read(easy_dataset)


def test_without_credentials_or_a_server(dataset, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage.filesystem(storage.path(dataset)).clear_instance_cache()
    with pytest.raises(StorageError) as error:
        manifest.read(storage.path(f"{dataset}/elsewhere"))
    assert str(error.value).startswith(f"{dataset}/elsewhere/manifest.json: cannot be read: ")
    assert "\n" not in str(error.value)
    storage.filesystem(storage.path(dataset)).clear_instance_cache()


def test_a_package_that_is_missing_is_named():
    script = (
        "import sys\n"
        "sys.modules['s3fs'] = None\n"
        "from fer_pipeline import storage\n"
        "try:\n"
        "    storage.path('s3://bucket/key')\n"
        "except storage.StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("s3://bucket/key: ")
    assert done.stdout.endswith("pip install 'fer_pipeline[s3]'\n")


def test_of_no_filesystem():
    with pytest.raises(StorageError, match=r"^blah://host/x: "):
        storage.path("blah://host/x")
