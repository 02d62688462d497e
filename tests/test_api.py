import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import fer_pipeline
from fer_pipeline import Dataset
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.extras import EXTRAS
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path
from tests.helpers.object_store import BUCKET, run_object_store
from tests.helpers.processes import block_packages, run_python

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"tensorflow", "keras", "pyspark", "petastorm", "matplotlib"}


@pytest.fixture(scope="module")
def dataset(easy_dataset):
    return Dataset.open(easy_dataset)


def read_rows(folder: Path, split: str) -> list[dict]:
    """Return the rows of a split, read file by file in the order of the manifest."""
    files = Dataset.open(folder).require_split(Split(split))
    return [row for file in files for row in pq.ParquetFile(folder / file.path).read().to_pylist()]


def list_imported_packages(code: str) -> set[str]:
    """Run code in a process of its own; return the packages that it imports."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    modules = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    return {name.partition(".")[0] for name in modules.split()}


class TestImport:
    def test_importing_the_package_imports_no_heavy_package(self):
        assert not list_imported_packages("import fer_pipeline") & {*HEAVY, "pyarrow", "numpy"}

    @pytest.mark.parametrize("name", sorted(set(fer_pipeline.__all__) - {"__version__"}))
    def test_importing_a_name_needs_neither_tensorflow_nor_spark(self, name):
        assert not list_imported_packages(f"from fer_pipeline import {name}") & HEAVY

    def test_all_public_names_can_be_imported(self):
        for name in fer_pipeline.__all__:
            assert getattr(fer_pipeline, name) is not None
        assert set(fer_pipeline.__all__) <= set(dir(fer_pipeline))

    def test_an_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="has no attribute 'Datasets'"):
            _ = fer_pipeline.Datasets

    @pytest.mark.parametrize("name", ["Config", "TrainedModel", "load_config"])
    def test_importing_a_name_of_the_base_installation_needs_no_extra(self, name):
        assert not list_imported_packages(f"from fer_pipeline import {name}") & set(EXTRAS)


class TestDataset:
    def test_the_rows_of_each_split_are_counted(self, dataset):
        assert dataset.row_counts == {"train": 115, "validation": 40, "test": 20}

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_to_arrow_returns_the_rows_of_the_files(self, dataset, easy_dataset, split):
        assert dataset.to_arrow(split).to_pylist() == read_rows(easy_dataset, split)

    def test_a_file_that_the_manifest_does_not_name_is_not_read(
        self, write_dataset, rows, tmp_path
    ):
        folder = write_dataset(tmp_path, {"train": rows})
        (file, *_) = folder.glob("split=train/*.parquet")
        (folder / "split=train" / "part-99999-stray.parquet").write_bytes(file.read_bytes())
        assert len(Dataset.open(folder).to_arrow("train")) == len(rows.labels)

    def test_to_pandas_and_arrow_dataset_return_the_same_rows_as_to_arrow(self, dataset):
        columns = ["label", "emotion"]
        table = dataset.to_arrow("test", columns)
        assert table.column_names == columns
        assert dataset.to_pandas("test", columns).equals(table.to_pandas())
        assert dataset.arrow_dataset("test").to_table(columns=columns).equals(table)

    def test_to_tf_yields_normalised_images_and_labels(self, dataset, easy_dataset):
        batches = list(dataset.to_tf("test", 8))
        assert [len(labels) for _, labels in batches] == [8, 8, 4]
        stored = read_rows(easy_dataset, "test")
        pixels = np.stack([np.frombuffer(row["image"], np.uint8) for row in stored])
        images = np.concatenate([images.numpy() for images, _ in batches])
        assert (images.dtype, images.shape) == (np.dtype(np.float32), (20, 16, 16, 1))
        expected = Normalization.centered().lookup_table()[pixels].reshape(images.shape)
        np.testing.assert_array_equal(images, expected)
        labels = np.concatenate([labels.numpy() for _, labels in batches])
        assert labels.tolist() == [row["label"] for row in stored]

    def test_to_tf_shuffles_by_seed_and_epoch(self, dataset):
        def read_labels(**options: Any) -> list[int]:
            batches = dataset.to_tf("train", 32, **options)
            return [int(label) for _, labels in batches for label in labels]

        first = read_labels(shuffle=True, seed=1)
        assert read_labels(shuffle=True, seed=1) == first
        assert sorted(first) == sorted(read_labels())
        orders = [
            first,
            read_labels(),
            read_labels(shuffle=True, seed=2),
            read_labels(shuffle=True, seed=1, epoch=1),
        ]
        assert len({tuple(order) for order in orders}) == 4

    def test_a_missing_package_is_an_error_that_names_the_extra(self, easy_dataset, tmp_path):
        program = (
            "from fer_pipeline import Dataset\n"
            f"dataset = Dataset.open({str(easy_dataset)!r})\n"
            "print(len(dataset.to_arrow('test')))\n"
            "for method, *arguments in ((dataset.to_pandas,), (dataset.to_tf, 8)):\n"
            "    try:\n"
            "        method('test', *arguments)\n"
            "    except ImportError as error:\n"
            "        print(error)\n"
        )
        blocked = block_packages(tmp_path / "path", ["pandas", "tensorflow", "keras"])
        assert run_python("-c", program, path=[blocked]).stdout.splitlines() == [
            "20",
            "pandas is not installed: pip install 'fer_pipeline[spark]'",
            "tensorflow is not installed: pip install 'fer_pipeline[train]'",
        ]

    def test_a_wrong_or_empty_split_and_a_missing_file_are_errors(
        self, dataset, write_dataset, rows, tmp_path
    ):
        with pytest.raises(ValueError, match="'tests' is not a valid Split"):
            dataset.to_arrow("tests")
        folder = write_dataset(tmp_path / "data", {"train": rows})
        with pytest.raises(DatasetError, match="the test split is empty"):
            Dataset.open(folder).to_pandas("test")
        next(folder.glob("split=train/*.parquet")).unlink()
        with pytest.raises(DatasetError, match="is missing"):
            Dataset.open(folder).arrow_dataset("train")

    def test_a_dataset_in_an_object_store_is_read(self, dataset, easy_dataset):
        with run_object_store():
            store = parse_path(BUCKET)
            for file in easy_dataset.rglob("*"):
                if file.is_file():
                    target = store / "api" / str(file.relative_to(easy_dataset))
                    storage.copy(file, target)
            remote = Dataset.open(f"{BUCKET}/api")
            assert remote.to_arrow("test").equals(dataset.to_arrow("test"))
