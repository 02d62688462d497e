"""Datasets, runs and reports in an object store: a real client, and a server on the loopback."""

import subprocess
import sys

import pytest

from fer_pipeline.config import load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import get_filesystem, parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.input.parquet_reader import Shard
from fer_pipeline.learning.training import checkpoint
from fer_pipeline.pipelines.train import train
from tests.helpers.evaluation import evaluate
from tests.helpers.object_store import BUCKET, list_objects, run_object_store


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket."""
    with run_object_store():
        yield BUCKET


@pytest.fixture(scope="module")
def dataset(bucket, easy_dataset):
    """The easy dataset, there."""
    for file in easy_dataset.rglob("*"):
        if file.is_file():
            storage.copy(file, parse_path(f"{bucket}/easy/{file.relative_to(easy_dataset)}"))
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
            shard = Shard(options.get("shard", 0), options.get("shards", 1))
            cached = options.get("cache_in_memory", False)
            loader = BatchLoader(
                StoredDataset.open(folder),
                Split.TRAIN,
                LoaderOptions(16, shuffle=True, seed=4, cache_in_memory=cached),
                shard=shard,
            )
            return [(a.numpy().tobytes(), b.numpy().tolist()) for a, b in loader.iterate_epoch(1)]

        assert batches(parse_path(dataset)) == batches(easy_dataset)

    def test_a_file_that_is_missing(self, bucket, dataset):
        copy = f"{bucket}/torn"
        for name in list_objects(dataset):
            part = parse_path(f"{dataset}/{name}")
            if not name.endswith("parquet"):
                storage.write_text(parse_path(f"{copy}/{name}"), storage.read_text(part))
        with pytest.raises(DatasetError, match="is missing, the manifest says"):
            BatchLoader(StoredDataset.open(copy), Split.TRAIN, LoaderOptions(16, shuffle=True))


class TestRuns:
    def test_have_the_same_files_and_weights(self, runs):
        there, local = runs
        assert {name for name in list_objects(there) if "tfevents" not in name} == {
            str(path.relative_to(local))
            for path in local.rglob("*")
            if path.is_file() and "tfevents" not in path.name
        }
        assert any("tfevents" in name for name in list_objects(there))
        for name in ("history.csv", "config.yaml"):
            assert storage.read_text(parse_path(f"{there}/{name}")) == (local / name).read_text()
        weights = [TrainedModel.open(parse_path(run)).load_network().get_weights() for run in runs]
        for one, other in zip(*weights, strict=True):
            assert one.tobytes() == other.tobytes()

    def test_are_not_replaced_unasked(self, runs, dataset):
        with pytest.raises(StorageError, match="holds a finished training run already"):
            train(dataset, runs[0], chosen())

    def test_that_are_killed_are_resumed(self, bucket, dataset, runs):
        there, write = f"{bucket}/killed", checkpoint.write_checkpoint

        class Killed(BaseException):
            pass

        def write_and_end(*arguments):
            write(*arguments)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "write_checkpoint", write_and_end)
            with pytest.raises(Killed):
                train(dataset, there, chosen())
        assert {".unfinished", "checkpoint.npz", "unfinished.csv"} <= list_objects(there)
        with pytest.raises(RunError, match="its training has not finished"):
            trained_model.read_model_info(parse_path(there))
        train(dataset, there, chosen(), resume=True)
        whole = storage.read_text(parse_path(f"{runs[0]}/history.csv"))
        assert storage.read_text(parse_path(f"{there}/history.csv")) == whole
        assert not {".unfinished", "checkpoint.npz", "unfinished.csv"} & list_objects(there)

    def test_are_evaluated(self, bucket, dataset, easy_dataset, runs, tmp_path):
        report, settings = tmp_path / "report", load_config(None)
        there = evaluate(runs[0], dataset, "test", f"{bucket}/report", settings)
        local = evaluate(runs[1], easy_dataset, "test", report, settings)
        assert there.metrics == local.metrics
        assert list_objects(f"{bucket}/report") == {path.name for path in report.iterdir()}

    def test_a_bucket_that_there_is_not(self, dataset):
        with pytest.raises(FerError) as error:
            train(dataset, "s3://none/run", chosen())
        message = str(error.value)
        assert message.startswith("s3://none/run")
        assert "\n" not in message


def test_a_manifest_is_read_from_there(dataset, easy_dataset):
    assert (
        StoredDataset.open(parse_path(dataset)).manifest
        == StoredDataset.open(easy_dataset).manifest
    )


def test_without_credentials_or_a_server(dataset, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    get_filesystem(parse_path(dataset)).clear_instance_cache()
    with pytest.raises(StorageError) as error:
        StoredDataset.open(f"{dataset}/elsewhere")
    assert str(error.value).startswith(f"{dataset}/elsewhere/manifest.json: cannot be read: ")
    assert "\n" not in str(error.value)
    get_filesystem(parse_path(dataset)).clear_instance_cache()


def test_a_package_that_is_missing_is_named():
    script = (
        "import sys\n"
        "sys.modules['s3fs'] = None\n"
        "from fer_pipeline.errors import StorageError\n"
        "from fer_pipeline.io.paths import parse_path\n"
        "try:\n"
        "    parse_path('s3://bucket/key')\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("s3://bucket/key: ")
    assert done.stdout.endswith("pip install 'fer_pipeline[s3]'\n")


def test_of_no_filesystem():
    with pytest.raises(StorageError, match=r"^blah://host/x: "):
        parse_path("blah://host/x")
