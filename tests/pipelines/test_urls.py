"""Datasets, runs and reports in an object store: a real client, and a server on the loopback."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, FerError, RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import get_filesystem, parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.input.row_groups import Shard
from fer_pipeline.learning.training import checkpoint
from fer_pipeline.pipelines.train import train
from tests.helpers.evaluation import evaluate
from tests.helpers.object_store import BUCKET, list_objects, run_object_store


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket."""
    with run_object_store():
        yield BUCKET


@pytest.fixture(scope="module")
def dataset(bucket: str, easy_dataset: Path) -> str:
    """The URL of the easy dataset in the bucket."""
    for file in easy_dataset.rglob("*"):
        if file.is_file():
            storage.copy(file, parse_path(f"{bucket}/easy/{file.relative_to(easy_dataset)}"))
    return f"{bucket}/easy"


def make_config(*overrides: str) -> Config:
    """Return a configuration of a short training."""
    options = ("loader.batch_size=23", "model.options.hidden=8", "training.epochs=3")
    return load_config(None, [*options, "training.optimizer.learning_rate=0.02", *overrides])


@pytest.fixture(scope="module")
def runs(
    bucket: str, dataset: str, easy_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Two equal runs: the URL of one in the bucket, and the folder of one on the disk."""
    local = tmp_path_factory.mktemp("run") / "run"
    train(str(easy_dataset), str(local), make_config())
    train(dataset, f"{bucket}/run", make_config())
    return f"{bucket}/run", local


class TestLoader:
    @pytest.mark.parametrize("options", [{}, {"shards": 2, "shard": 1}, {"cache_in_memory": True}])
    def test_batches_are_those_of_a_local_dataset(self, dataset, easy_dataset, options):
        def read_batches(folder: Path) -> list[tuple[bytes, list[Any]]]:
            shard = Shard(options.get("shard", 0), options.get("shards", 1))
            cached = options.get("cache_in_memory", False)
            loader = BatchLoader(
                StoredDataset.open(folder),
                Split.TRAIN,
                LoaderOptions(16, shuffle=True, seed=4, cache_in_memory=cached),
                shard=shard,
            )
            return [
                (images.numpy().tobytes(), labels.numpy().tolist())
                for images, labels in loader.iterate_epoch(1)
            ]

        assert read_batches(parse_path(dataset)) == read_batches(easy_dataset)

    def test_a_missing_file_is_an_error(self, bucket, dataset):
        copy = f"{bucket}/torn"
        for name in list_objects(dataset):
            part = parse_path(f"{dataset}/{name}")
            if not name.endswith("parquet"):
                storage.write_text(parse_path(f"{copy}/{name}"), storage.read_text(part))
        with pytest.raises(DatasetError, match="is missing, the manifest says"):
            BatchLoader(StoredDataset.open(copy), Split.TRAIN, LoaderOptions(16, shuffle=True))


class TestRuns:
    def test_a_run_has_the_files_and_weights_of_a_local_run(self, runs):
        remote, local = runs
        assert {name for name in list_objects(remote) if "tfevents" not in name} == {
            str(path.relative_to(local))
            for path in local.rglob("*")
            if path.is_file() and "tfevents" not in path.name
        }
        assert any("tfevents" in name for name in list_objects(remote))
        for name in ("history.csv", "config.yaml"):
            assert storage.read_text(parse_path(f"{remote}/{name}")) == (local / name).read_text()
        weights_by_run = [
            TrainedModel.open(parse_path(run)).load_network().get_weights() for run in runs
        ]
        for remote_weights, local_weights in zip(*weights_by_run, strict=True):
            assert remote_weights.tobytes() == local_weights.tobytes()

    def test_a_run_is_not_replaced_without_overwrite(self, runs, dataset):
        with pytest.raises(StorageError, match="holds a finished training run already"):
            train(dataset, runs[0], make_config())

    def test_a_killed_run_is_resumed(self, bucket, dataset, runs):
        remote, write_checkpoint = f"{bucket}/killed", checkpoint.write_checkpoint

        class Killed(BaseException):
            pass

        def write_and_end(*arguments: Any) -> None:
            write_checkpoint(*arguments)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "write_checkpoint", write_and_end)
            with pytest.raises(Killed):
                train(dataset, remote, make_config())
        assert {".unfinished", "checkpoint.npz", "unfinished.csv"} <= list_objects(remote)
        with pytest.raises(RunError, match="its training has not finished"):
            trained_model.read_model_info(parse_path(remote))
        train(dataset, remote, make_config(), resume=True)
        expected_history = storage.read_text(parse_path(f"{runs[0]}/history.csv"))
        assert storage.read_text(parse_path(f"{remote}/history.csv")) == expected_history
        assert not {".unfinished", "checkpoint.npz", "unfinished.csv"} & list_objects(remote)

    def test_a_run_is_evaluated_like_a_local_run(
        self, bucket, dataset, easy_dataset, runs, tmp_path
    ):
        local_folder, config = tmp_path / "report", load_config(None)
        remote_evaluation = evaluate(runs[0], dataset, "test", f"{bucket}/report", config)
        local_evaluation = evaluate(runs[1], easy_dataset, "test", local_folder, config)
        assert remote_evaluation.metrics == local_evaluation.metrics
        assert list_objects(f"{bucket}/report") == {path.name for path in local_folder.iterdir()}

    def test_the_error_of_a_missing_bucket_names_the_run(self, dataset):
        with pytest.raises(FerError) as error:
            train(dataset, "s3://none/run", make_config())
        message = str(error.value)
        assert message.startswith("s3://none/run")
        assert "\n" not in message


def test_a_manifest_is_read_from_the_bucket(dataset, easy_dataset):
    assert (
        StoredDataset.open(parse_path(dataset)).manifest
        == StoredDataset.open(easy_dataset).manifest
    )


def test_the_error_without_a_server_names_the_file(dataset, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    get_filesystem(parse_path(dataset)).clear_instance_cache()
    with pytest.raises(StorageError) as error:
        StoredDataset.open(f"{dataset}/elsewhere")
    assert str(error.value).startswith(f"{dataset}/elsewhere/manifest.json: cannot be read: ")
    assert "\n" not in str(error.value)
    get_filesystem(parse_path(dataset)).clear_instance_cache()


def test_the_error_of_a_missing_package_names_the_command():
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
    process = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert process.stdout.startswith("s3://bucket/key: ")
    assert process.stdout.endswith("pip install 'fer_pipeline[s3]'\n")


def test_an_unknown_protocol_is_refused():
    with pytest.raises(StorageError, match=r"^blah://host/x: "):
        parse_path("blah://host/x")
