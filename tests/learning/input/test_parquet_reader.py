"""The two readers of row groups, petastorm and pyarrow, compared with each other."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config.schema import ReaderName
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input import row_groups
from fer_pipeline.learning.input.parquet_reader import ParquetReader
from fer_pipeline.learning.input.row_groups import Shard, UnequalLengthsError
from tests.helpers.stored_datasets import CLASSES, ROWS, Rowset, write_dataset

ROOT = Path(__file__).resolve().parents[3]
Arrays = list[dict[str, npt.NDArray[Any]]]


@pytest.fixture(scope="module")
def voted_rows(rows: Rowset) -> Rowset:
    """Rows with votes."""
    votes = np.random.default_rng(2).dirichlet(np.ones(len(CLASSES)), ROWS)
    return dataclasses.replace(rows, votes=votes.astype(np.float32))


@pytest.fixture(scope="module", params=["uint8", "float32"])
def dataset(request, voted_rows: Rowset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return write_dataset(folder, {"train": voted_rows}, dtype=request.param)


def read(
    folder: Path,
    reader: ReaderName,
    columns: tuple[str, ...],
    seed: int | None = None,
    shard: Shard | None = None,
    *,
    deterministic: bool = True,
) -> Arrays:
    """Return the pixels and some columns of each row group."""
    parquet_reader = ParquetReader(
        StoredDataset.open(folder),
        Split.TRAIN,
        deterministic=deterministic,
        shard=shard or Shard(),
        reader=reader,
    )
    return [
        {"pixels": pixels, **arrays}
        for pixels, arrays in parquet_reader.read_row_groups(columns, seed)
    ]


def assert_equal(first: Arrays, second: Arrays) -> None:
    """Assert that names, values, shapes, types and order are equal."""
    for expected, actual in zip(first, second, strict=True):
        assert list(expected) == list(actual)
        for name, array in expected.items():
            assert (array.dtype, array.shape) == (actual[name].dtype, actual[name].shape)
            assert array.tobytes() == actual[name].tobytes()


class TestOrder:
    @pytest.mark.parametrize("columns", [(), (schema.LABEL, schema.VOTES), tuple(schema.ORIGIN)])
    @pytest.mark.parametrize("shards", [1, 2, 3, 7, 12])
    def test_both_readers_deliver_the_same_row_groups(self, dataset, columns, shards) -> None:
        orders = set()
        for seed, index in itertools.product((None, 0, 1, 7, 2**32 - 1), range(shards)):
            shard = Shard(index, shards)
            first = read(dataset, "petastorm", columns, seed, shard)
            assert_equal(first, read(dataset, "pyarrow", columns, seed, shard))
            orders.add(b"".join(group["pixels"].tobytes() for group in first))
        assert len(orders) > shards // 2

    def test_the_number_of_threads_does_not_change_the_order(self, dataset) -> None:
        groups = row_groups.list_row_groups(sorted((dataset / "split=train").iterdir()))
        assert sum(group.row_count for group in groups) == ROWS
        with_one_thread, *with_more_threads = (
            list(row_groups.read_row_groups(groups, [schema.IMAGE, schema.LABEL], threads))
            for threads in (1, 2, 8)
        )
        assert len(with_one_thread) == len(groups)
        for arrays in with_more_threads:
            assert_equal(with_one_thread, arrays)

    @pytest.mark.parametrize("reader", ["petastorm", "pyarrow"])
    def test_no_pass_of_several_threads_is_short(self, dataset, reader) -> None:
        """petastorm 0.13.1 lost row groups in a third of the passes."""
        for seed in range(100):
            groups = read(dataset, reader, (schema.LABEL,), seed, deterministic=False)
            assert sum(len(group["pixels"]) for group in groups) == ROWS


class TestColumns:
    """pyarrow's arrays as NumPy arrays."""

    @pytest.fixture
    def read_column(self, tmp_path):
        """A function that writes a column to a file of two row groups and reads the second one."""

        def write_and_read(column: pa.Array) -> npt.NDArray[Any]:
            path = tmp_path / "column.parquet"
            pq.write_table(pa.table({"column": column}), path, row_group_size=3)
            return row_groups.list_row_groups([path])[1].read(["column"])["column"]

        return write_and_read

    @pytest.mark.parametrize(
        ("column", "expected"),
        [
            (pa.array(range(5), pa.int32()), np.array([3, 4], np.int32)),
            (pa.array(range(5), pa.int64()), np.array([3, 4], np.int64)),
            (pa.array(["", "a", "b", "c", "für"]), np.array(["c", "für"])),
            (pa.array([b"ab"] * 4 + [b"cd"]), np.array([[97, 98], [99, 100]], np.uint8)),
            (
                pa.array([[0.5, 1]] * 4 + [[2, 3]], pa.list_(pa.float32())),
                np.array([[0.5, 1], [2, 3]], np.float32),
            ),
        ],
        ids=["int", "bigint", "string", "binary", "array<float>"],
    )
    def test_values_and_types_are_those_of_the_column(self, read_column, column, expected) -> None:
        values = read_column(column)
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([b"ab"] * 4 + [b"c"]),
            pa.array([b"ab"] * 4 + [None]),
            pa.array([[0.5, 1]] * 4 + [[2]], pa.list_(pa.float32())),
            pa.array([[0.5, 1]] * 4 + [None], pa.list_(pa.float32())),
        ],
    )
    def test_entries_of_unequal_lengths_are_refused(self, read_column, column) -> None:
        with pytest.raises(UnequalLengthsError, match="column"):
            read_column(column)


# Reads a dataset in a process that cannot import petastorm, and prints the rows in hexadecimal.
READ_WITHOUT_PETASTORM = """
import logging, sys
sys.modules["petastorm"] = None
logging.basicConfig(format="%(message)s")
from pathlib import Path
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.input.parquet_reader import ParquetReader
from fer_pipeline.learning.input.row_groups import Shard
dataset = StoredDataset.open(Path(sys.argv[1]))
for _ in range(2):
    reader = ParquetReader(
        dataset, Split.TRAIN, deterministic=True, shard=Shard(), reader="petastorm"
    )
    for pixels, columns in reader.read_row_groups([], 7):
        print(pixels.tobytes().hex())
"""


def test_pyarrow_takes_the_place_of_a_missing_petastorm(dataset) -> None:
    command = [sys.executable, "-c", READ_WITHOUT_PETASTORM, str(dataset)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    groups = read(dataset, "petastorm", (), 7)
    assert process.stdout.split() == 2 * [group["pixels"].tobytes().hex() for group in groups]
    (warning,) = process.stderr.splitlines()
    assert warning.startswith("petastorm cannot be imported (MissingPackageError: petastorm is not")
    assert "pip install 'fer_pipeline[petastorm]'" in warning
    assert warning.endswith("; pyarrow reads the dataset instead, in the same order")
