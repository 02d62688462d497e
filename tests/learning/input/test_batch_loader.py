import dataclasses
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import DataFile
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.batch_loader import (
    PADDING_LABEL,
    BatchLoader,
    LoaderOptions,
    Transform,
)
from fer_pipeline.learning.input.row_groups import Shard
from tests.helpers.stored_datasets import Rowset, write_dataset

SIZE = 16
ROWS = 115
NORMALIZATIONS = {
    "centered": Normalization.centered(),
    "unit": Normalization.zero_to_one(),
    # Approximately the sums of FER2013's 28,709 training images.
    "standard": Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000),
}
TABLE = NORMALIZATIONS["centered"].lookup_table()


Array = npt.NDArray[Any]
RowCounts = Counter[tuple[bytes, int]]
"""Number of times that each row, the bytes of its image and its label, was delivered."""


def make_loader(
    folder: Path,
    batch_size: int = 16,
    *,
    split: str = "train",
    shard: int = 0,
    shards: int = 1,
    transform: Transform | None = None,
    **options: Any,
) -> BatchLoader:
    """Return a loader that shuffles by default; the options are those of `LoaderOptions`."""
    return BatchLoader(
        StoredDataset.open(folder),
        Split(split),
        LoaderOptions(batch_size, **{"shuffle": True, **options}),
        shard=Shard(shard, shards),
        transform=transform,
    )


def load_batches(loader: BatchLoader, number: int = 0) -> list[tuple[Array, Array]]:
    """Return images and labels of each batch of an epoch."""
    return [(images.numpy(), labels.numpy()) for images, labels in loader.iterate_epoch(number)]


def load_epoch(loader: BatchLoader, number: int = 0) -> tuple[Array, Array]:
    """Return all images and all labels of an epoch."""
    batches = load_batches(loader, number)
    return (
        np.concatenate([images for images, _ in batches]),
        np.concatenate([labels for _, labels in batches]),
    )


def count_rows(images: Array, labels: Array) -> RowCounts:
    """Return the number of times that each row occurs."""
    return Counter((i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True))


def count_expected_rows(rows: Rowset, table: Array = TABLE) -> RowCounts:
    """Return the counts of rows, each of which occurs once, normalized by a lookup table."""
    return count_rows(table[rows.pixels][..., None], rows.labels)


def find_order(rows: Rowset, images: Array, table: Array = TABLE) -> list[int]:
    """Return the stored position of each image."""
    position = {table[face].tobytes(): row for row, face in enumerate(rows.pixels)}
    return [position[image.tobytes()] for image in images]


def get_message(error: pytest.ExceptionInfo[DatasetError]) -> str:
    """Return the message of an error, which must be one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def dataset(rows, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("uint8"), {"train": rows})


@pytest.fixture(scope="module")
def float_dataset(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("float32")
    return write_dataset(folder, {"train": rows}, dtype="float32")


@pytest.fixture(params=["uint8", "float32"])
def dataset_of_each_dtype(request, dataset, float_dataset):
    return {"uint8": dataset, "float32": float_dataset}[request.param]


# Options of loaders. An epoch has the same rows with each of them.
READ_OPTIONS = [
    pytest.param({}, id="by default"),
    pytest.param({"shuffle": False}, id="in stored order"),
    pytest.param({"shuffle_buffer": 20}, id="small buffer"),
    pytest.param({"shuffle_buffer": 1}, id="buffer smaller than a batch"),
    pytest.param({"shuffle_buffer": ROWS}, id="buffer of the split"),
    pytest.param({"batch_size": ROWS}, id="batch of the split"),
    pytest.param({"batch_size": 1000}, id="batch larger than the split"),
    pytest.param({"batch_size": 1, "shuffle_buffer": 1}, id="batch of one"),
    pytest.param({"batch_size": 23}, id="batches of equal size"),
    pytest.param({"deterministic": False}, id="not deterministic"),
    pytest.param({"deterministic": False, "shuffle_buffer": 20}, id="not deterministic, small"),
    pytest.param({"reader": "pyarrow"}, id="read by pyarrow"),
    pytest.param({"reader": "pyarrow", "shuffle": False}, id="read by pyarrow, in stored order"),
    pytest.param({"cache_in_memory": True}, id="in memory"),
    pytest.param({"cache_in_memory": True, "shuffle": False}, id="in memory, in stored order"),
]


class TestDeliveredRows:
    @pytest.mark.parametrize("options", READ_OPTIONS)
    def test_each_epoch_delivers_each_row_once(self, dataset_of_each_dtype, rows, options):
        loader = make_loader(dataset_of_each_dtype, **options)
        size = options.get("batch_size", 16)
        for number in range(3):
            batches = load_batches(loader, number)
            assert sum((count_rows(*batch) for batch in batches), Counter()) == count_expected_rows(
                rows
            )
            full_count, last_size = divmod(ROWS, size)
            assert [len(n) for _, n in batches] == [size] * full_count + [last_size] * (
                last_size > 0
            )
            assert loader.steps_per_epoch == len(batches)
            assert loader.row_count == ROWS
            for images, labels in batches:
                assert images.dtype == np.float32
                assert images.shape == (len(labels), SIZE, SIZE, 1)
                assert labels.dtype == np.int32

    @pytest.mark.parametrize("cache", [False, True])
    def test_without_shuffling_rows_come_in_stored_order(self, dataset_of_each_dtype, rows, cache):
        loader = make_loader(dataset_of_each_dtype, 9, shuffle=False, cache_in_memory=cache)
        for number in (0, 1):
            images, labels = load_epoch(loader, number)
            np.testing.assert_array_equal(images, TABLE[rows.pixels][..., None])
            np.testing.assert_array_equal(labels, rows.labels)

    def test_the_tf_dataset_delivers_the_same_batches(self, dataset):
        loader = make_loader(dataset)
        batches = [(i.numpy(), n.numpy()) for i, n in loader.make_tf_dataset(3)]
        for batch, expected in zip(batches, load_batches(loader, 3), strict=True):
            np.testing.assert_array_equal(batch[0], expected[0])
            np.testing.assert_array_equal(batch[1], expected[1])
        images, labels = loader.make_tf_dataset(0).element_spec
        assert (images.shape.as_list(), images.dtype) == ([None, SIZE, SIZE, 1], tf.float32)
        assert (labels.shape.as_list(), labels.dtype) == ([None], tf.int32)

    def test_each_split_has_its_own_rows(self, rows, tmp_path):
        parts = {
            "train": Rowset(rows.pixels[:60], rows.labels[:60]),
            "validation": Rowset(rows.pixels[60:90], rows.labels[60:90]),
            "test": Rowset(rows.pixels[90:], rows.labels[90:]),
        }
        folder = write_dataset(tmp_path, parts)
        for split, part in parts.items():
            loader = make_loader(folder, split=split)
            assert count_rows(*load_epoch(loader)) == count_expected_rows(part)
            assert loader.row_count == len(part.labels)

    def test_files_that_the_manifest_does_not_name_are_ignored(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        split_folder = folder / "split=train"
        first = min(split_folder.iterdir())
        (split_folder / "part-00000-1.parquet").write_bytes(first.read_bytes())
        (split_folder / "part-99999-1.parquet").write_bytes(b"PAR1 a torn file")
        (split_folder / "_common_metadata").write_bytes(b"none")
        (split_folder / "_metadata").write_bytes(b"none")
        (folder / "extra.parquet").write_bytes(first.read_bytes())
        for shards in (1, 2):
            loaders = [make_loader(folder, shard=shard, shards=shards) for shard in range(shards)]
            row_counts = sum((count_rows(*load_epoch(loader)) for loader in loaders), Counter())
            assert row_counts == count_expected_rows(rows)

    @pytest.mark.parametrize(
        "name", ["with space", "50% off %41", "a+b=c&d", "a:b", "für", "[a]*", "~"]
    )
    def test_a_folder_may_have_almost_any_name(self, rows, tmp_path, name):
        folder = write_dataset(tmp_path / name, {"train": rows})
        assert count_rows(*load_epoch(make_loader(folder))) == count_expected_rows(rows)
        assert make_loader(folder, shards=3, shard=2).row_count < ROWS

    @pytest.mark.parametrize(("name", "letter"), [("a#b", "#"), ("what?", "?")])
    def test_a_folder_name_that_petastorm_cannot_read_is_an_error(
        self, rows, tmp_path, name, letter
    ):
        folder = write_dataset(tmp_path / name, {"train": rows})
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        message = get_message(error)
        assert message.startswith(f"{folder}: ")
        assert f" {letter};" in message
        loader = make_loader(folder, reader="pyarrow")
        assert count_rows(*load_epoch(loader)) == count_expected_rows(rows)

    def test_a_relative_path_stays_valid_in_another_working_directory(
        self, dataset, rows, monkeypatch
    ):
        monkeypatch.chdir(dataset.parent)
        loader = make_loader(Path(dataset.name))
        monkeypatch.chdir("/")
        assert count_rows(*load_epoch(loader)) == count_expected_rows(rows)


class TestOrder:
    @pytest.mark.parametrize("cache", [False, True])
    @pytest.mark.parametrize("buffer", [20, 16384])
    def test_the_order_depends_only_on_seed_and_epoch(self, dataset, cache, buffer):
        make = functools.partial(make_loader, dataset, cache_in_memory=cache, shuffle_buffer=buffer)
        loader = make(seed=5)
        first, second = load_epoch(loader, 0), load_epoch(loader, 1)
        # Neither earlier epochs nor the loader matter.
        for again in (load_epoch(loader, 0), load_epoch(make(seed=5), 0)):
            np.testing.assert_array_equal(again[0], first[0])
            np.testing.assert_array_equal(again[1], first[1])
        np.testing.assert_array_equal(load_epoch(make(seed=5), 1)[0], second[0])
        others = [second[0], load_epoch(make(seed=6), 0)[0], load_epoch(make(seed=6), 1)[0]]
        orders = {images.tobytes() for images in [first[0], *others]}
        assert len(orders) == 4

    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"deterministic": False}])
    def test_the_order_is_far_from_the_stored_order(self, dataset, rows, options):
        for number in range(3):
            order = np.array(
                find_order(rows, load_epoch(make_loader(dataset, **options), number)[0])
            )
            # A random permutation of n moves a row by n / 3 on average: here 38.
            assert np.abs(order - np.arange(ROWS)).mean() > 25
            neighbours = np.abs(np.diff(order)) == 1
            assert neighbours.mean() < 0.1
            assert abs(np.corrcoef(order, np.arange(ROWS))[0, 1]) < 0.4

    def test_a_small_buffer_mixes_row_groups(self, dataset, rows):
        images, _ = load_epoch(make_loader(dataset, shuffle_buffer=48))
        order = np.array(find_order(rows, images))
        group = np.repeat(np.arange(9), [16, 16, 7, 16, 16, 16, 3, 16, 9])[order]
        in_batch = [len(set(group[i : i + 16])) for i in range(0, ROWS - 16, 16)]
        assert min(in_batch) >= 2
        assert (np.abs(np.diff(order)) == 1).mean() < 0.15

    def test_the_order_of_row_groups_changes_each_epoch(self, dataset, rows):
        # A buffer of one row does not mix rows: only the order of the row groups changes.
        loader = make_loader(dataset, 1, shuffle_buffer=1)
        firsts = {find_order(rows, load_epoch(loader, number)[0])[0] for number in range(6)}
        assert len(firsts) > 1

    def test_the_stored_order_does_not_depend_on_the_seed(self, dataset):
        images = load_epoch(make_loader(dataset, shuffle=False, seed=1), 0)[0]
        np.testing.assert_array_equal(
            images, load_epoch(make_loader(dataset, shuffle=False, seed=2), 1)[0]
        )


class TestPixels:
    @pytest.mark.parametrize("kind", NORMALIZATIONS)
    def test_pixels_of_both_dtypes_have_the_bits_of_the_lookup_table(self, rows, tmp_path, kind):
        assert len(np.unique(rows.pixels)) == 256
        table = NORMALIZATIONS[kind].lookup_table()
        batches = {}
        for dtype in ("uint8", "float32"):
            folder = write_dataset(
                tmp_path / dtype, {"train": rows}, dtype=dtype, normalization=NORMALIZATIONS[kind]
            )
            images, labels = load_epoch(make_loader(folder, shuffle=False))
            # Bits, not values: -0.0 is not 0.0.
            np.testing.assert_array_equal(
                images.view(np.uint32), table[rows.pixels][..., None].view(np.uint32)
            )
            np.testing.assert_array_equal(labels, rows.labels)
            batches[dtype] = load_batches(make_loader(folder, seed=3), 2)
            raw = np.concatenate(
                [pixels for pixels, _ in make_loader(folder).iterate_stored_batches([])]
            )
            np.testing.assert_array_equal(raw, rows.pixels)
        for batch, float_batch in zip(batches["uint8"], batches["float32"], strict=True):
            assert batch[0].tobytes() == float_batch[0].tobytes()
            np.testing.assert_array_equal(batch[1], float_batch[1])

    @pytest.mark.parametrize("batch_size", [5, 16, 1000])
    def test_stored_batches_have_stored_order_and_origins(
        self, dataset_of_each_dtype, rows, batch_size
    ):
        names = [schema.LABEL, "emotion", *schema.ORIGIN]
        pixels = []
        columns: dict[str, list[Any]] = {name: [] for name in names}
        # The options of the loader have no influence: no row is shuffled or left out.
        for batch, batch_columns in make_loader(
            dataset_of_each_dtype, batch_size, deterministic=False
        ).iterate_stored_batches(names):
            assert batch.dtype == np.uint8
            assert batch.shape[1:] == (SIZE, SIZE)
            assert 0 < len(batch) <= batch_size
            assert list(batch_columns) == names
            pixels.append(batch)
            for name in names:
                assert len(batch_columns[name]) == len(batch)
                columns[name] += batch_columns[name].tolist()
        np.testing.assert_array_equal(np.concatenate(pixels), rows.pixels)
        classes = ("angry", "happy", "sad")
        assert columns.pop(schema.LABEL) == rows.labels.tolist()
        assert columns.pop("emotion") == [classes[label] for label in rows.labels]
        origins = [rows.origin(row) for row in range(ROWS)]
        assert columns == {name: [o[name] for o in origins] for name in schema.ORIGIN}

    def test_stored_batches_without_columns(self, dataset, rows):
        batches = list(make_loader(dataset).iterate_stored_batches([]))
        assert all(columns == {} for _, columns in batches)
        np.testing.assert_array_equal(np.concatenate([p for p, _ in batches]), rows.pixels)


class TestShards:
    @pytest.mark.parametrize(
        ("shards", "options"),
        [
            (2, {}),
            (9, {"batch_size": 64}),
            (4, {"shuffle": False}),
            (4, {"deterministic": False}),
            (4, {"cache_in_memory": True}),
        ],
        ids=str,
    )
    def test_shards_are_disjoint_and_together_complete(self, dataset, rows, shards, options):
        loaders = [make_loader(dataset, shard=s, shards=shards, **options) for s in range(shards)]
        assert sum(loader.row_count for loader in loaders) == ROWS
        for number in (0, 1):
            batches_by_shard = [load_batches(loader, number) for loader in loaders]
            for loader, shard_batches in zip(loaders, batches_by_shard, strict=True):
                sizes = [len(labels) for _, labels in shard_batches]
                assert sum(sizes) == loader.row_count
                # Each shard takes part in each step, with nearly equal batches.
                assert len(sizes) == loader.steps_per_epoch == loaders[0].steps_per_epoch
                assert max(sizes) - min(sizes) <= 1
            row_counts = sum(
                (
                    count_rows(*batch)
                    for shard_batches in batches_by_shard
                    for batch in shard_batches
                ),
                Counter(),
            )
            assert row_counts == count_expected_rows(rows)

    def test_a_shard_has_the_same_rows_each_epoch(self, dataset):
        loader = make_loader(dataset, shard=1, shards=4)
        assert count_rows(*load_epoch(loader, 0)) == count_rows(*load_epoch(loader, 1))

    def test_stored_batches_of_shards_are_together_complete(self, dataset, rows):
        row_counts: RowCounts = Counter()
        for shard in range(2):
            for pixels, columns in make_loader(
                dataset, shard=shard, shards=2
            ).iterate_stored_batches([schema.LABEL]):
                row_counts += count_rows(TABLE[pixels], columns[schema.LABEL])
        assert row_counts == count_expected_rows(rows)

    def test_more_than_ten_files_are_read_in_their_order(self, rows, tmp_path):
        # Thirteen files: file 10 must follow file 9, and not file 1.
        layout = [[10 - number % 2] for number in range(12)] + [[10]]
        folder = write_dataset(tmp_path, {"train": rows}, layout=layout)
        loaders = [make_loader(folder, shard=s, shards=5, shuffle=False) for s in range(5)]
        assert sum(
            (count_rows(*load_epoch(loader)) for loader in loaders), Counter()
        ) == count_expected_rows(rows)
        np.testing.assert_array_equal(
            load_epoch(make_loader(folder, shuffle=False))[0], TABLE[rows.pixels][..., None]
        )

    def test_shards_have_as_many_steps_as_a_single_loader(self, dataset):
        alone = make_loader(dataset, batch_size=40)
        loaders = [make_loader(dataset, batch_size=40, shard=s, shards=3) for s in range(3)]
        assert {loader.steps_per_epoch for loader in loaders} == {alone.steps_per_epoch} == {3}
        assert {loader.split_row_count for loader in loaders} == {alone.row_count} == {ROWS}

    def test_each_shard_has_its_own_random_numbers(self, dataset):
        def replace_pixels_by_seed(images, labels, seed):
            return images * 0 + tf.cast(seed[0], tf.float32), labels

        loaders = [
            make_loader(dataset, shard=s, shards=2, transform=replace_pixels_by_seed)
            for s in range(2)
        ]
        first, second = (load_batches(loader)[0][0].ravel()[0] for loader in loaders)
        assert first != second
        # The first of two shards has the random numbers of a single one.
        assert (
            first
            == load_batches(make_loader(dataset, transform=replace_pixels_by_seed))[0][0].ravel()[0]
        )

    def test_a_shard_continues_in_the_middle_of_an_epoch(self, dataset):
        loader = make_loader(dataset, batch_size=20, shard=1, shards=2)
        remaining = [labels.numpy() for _, labels in loader.open_epoch(0, skip_batches=2).batches]
        whole = [labels for _, labels in load_batches(loader)]
        assert [part.tolist() for part in remaining] == [part.tolist() for part in whole[2:]]

    @pytest.mark.parametrize("cache", [False, True])
    def test_validation_pads_shards_with_fewer_rows_than_steps(self, dataset, rows, cache):
        """Ten shards read nine row groups, so that the last shard has no rows."""
        options = {"batch_size": 10, "shuffle": False, "cache_in_memory": cache}
        loaders = [make_loader(dataset, shard=s, shards=10, **options) for s in range(10)]
        assert loaders[9].row_count == 0
        parts = [load_epoch(loader) for loader in loaders]
        assert all(len(labels) >= 12 == loaders[0].steps_per_epoch for _, labels in parts)
        real = [
            (images[labels != PADDING_LABEL], labels[labels != PADDING_LABEL])
            for images, labels in parts
        ]
        assert sum((count_rows(*part) for part in real), Counter()) == count_expected_rows(rows)
        assert (parts[9][1] == PADDING_LABEL).all()

    def test_training_refuses_a_shard_with_fewer_rows_than_steps(self, dataset):
        with pytest.raises(DatasetError) as error:
            make_loader(dataset, shard=9, shards=10)
        message = get_message(error)
        assert message.startswith(f"{dataset}: reader 10 of 10 has 0 rows of the train split")
        assert "8 batches" in message
        assert "output.row_group_rows" in message
        assert "fewer workers" in message


class TestCache:
    def test_files_are_needed_only_for_the_first_epoch(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        loader = make_loader(folder, cache_in_memory=True)
        first = load_epoch(loader, 0)
        for path in (folder / "split=train").iterdir():
            path.unlink()
        assert count_rows(*load_epoch(loader, 1)) == count_expected_rows(rows)
        np.testing.assert_array_equal(load_epoch(loader, 0)[0], first[0])

    def test_an_abandoned_epoch_leaves_no_incomplete_cache(self, dataset, rows):
        loader = make_loader(dataset, 4, cache_in_memory=True)
        epoch = loader.iterate_epoch(0)
        next(epoch)
        cast(Generator, epoch).close()
        assert count_rows(*load_epoch(loader, 0)) == count_expected_rows(rows)

    def test_a_failed_epoch_is_not_cached(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        loader = make_loader(folder, cache_in_memory=True)
        for number in (0, 1):
            with pytest.raises(DatasetError, match="delivered 115 rows, the manifest says 116"):
                load_epoch(loader, number)


def claim_rows(more: int) -> Callable[[DataFile], DataFile]:
    """Return a function that adds to the rows of the second file in the manifest."""

    def change(file: DataFile) -> DataFile:
        second = "part-00001" in file.path
        return file.model_copy(update={"rows": file.rows + more * second})

    return change


READERS: dict[str, Callable[[BatchLoader], list[Any]]] = {
    "epoch": lambda loader: list(loader.iterate_epoch(0)),
    "dataset": lambda loader: list(loader.make_tf_dataset(0)),
    "raw": lambda loader: list(loader.iterate_stored_batches([schema.LABEL])),
}


class TestDamage:
    @pytest.mark.parametrize("read", READERS)
    @pytest.mark.parametrize(
        "options",
        [{}, {"cache_in_memory": True}, {"deterministic": False}, {"reader": "pyarrow"}],
    )
    @pytest.mark.parametrize("more", [1, -1])
    def test_another_number_of_rows_than_in_the_manifest(self, rows, tmp_path, more, options, read):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(more))
        loader = make_loader(folder, **options)
        # pyarrow knows the number before it reads the first row.
        is_known_before = options.get("reader") == "pyarrow"
        words = (
            f"{folder}: {'the files' if is_known_before else 'an epoch'} of the train split",
            "hold 115 rows" if is_known_before else "delivered 115 rows",
            f"the manifest says {115 + more}",
            "run preprocess again",
        )
        if read == "dataset":
            with pytest.raises(tf.errors.OpError) as error:
                READERS[read](loader)
            message = str(error.value)
        else:
            with pytest.raises(DatasetError) as dataset_error:
                READERS[read](loader)
            message = get_message(dataset_error)
            assert message.startswith(words[0])
        for phrase in words:
            assert phrase in message

    def test_another_number_of_rows_is_an_error_at_the_end_of_the_epoch(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        epoch = make_loader(folder, 23, shuffle=False).iterate_epoch(0)
        batches = [next(epoch) for _ in range(ROWS // 23)]
        row_counts = (count_rows(images.numpy(), labels.numpy()) for images, labels in batches)
        assert sum(row_counts, Counter()) == count_expected_rows(rows)
        with pytest.raises(DatasetError):
            next(epoch)

    def test_a_missing_file(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        size = path.stat().st_size
        path.unlink()
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        message = get_message(error)
        assert message.startswith(f"{path}: is missing")
        assert f"the manifest says {size} bytes" in message
        assert "run preprocess again" in message

    def test_a_file_of_another_length(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        message = get_message(error)
        assert message.startswith(f"{path}: has {size - 1} bytes")
        assert f"the manifest says {size} bytes" in message
        assert "run preprocess again" in message

    @pytest.mark.parametrize("read", ["epoch", "raw"])
    @pytest.mark.parametrize("options", [{}, {"deterministic": False}, {"reader": "pyarrow"}])
    def test_a_file_that_is_deleted_before_it_is_read(self, rows, tmp_path, options, read):
        folder = write_dataset(tmp_path, {"train": rows})
        loader = make_loader(folder, **options)
        path = sorted((folder / "split=train").iterdir())[1]
        path.unlink()
        with pytest.raises(DatasetError) as error:
            READERS[read](loader)
        assert str(folder) in get_message(error)

    @pytest.mark.parametrize(
        "options",
        [{}, {"cache_in_memory": True}, {"shards": 2}, {"reader": "pyarrow"}],
    )
    @pytest.mark.parametrize("part", ["pages", "footer", "magic"])
    def test_a_file_that_is_no_longer_parquet(self, rows, tmp_path, part, options):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        content = bytearray(path.read_bytes())
        footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        damaged_range = {
            "pages": slice(4, footer),
            "footer": slice(footer, len(content) - 8),
            "magic": slice(len(content) - 4, len(content)),
        }[part]
        content[damaged_range] = bytes(byte ^ 0x5A for byte in content[damaged_range])
        path.write_bytes(content)

        def read():
            for shard in range(options.get("shards", 1)):
                list(make_loader(folder, **options, shard=shard).iterate_epoch(0))

        with pytest.raises(DatasetError) as error:
            read()
        assert str(folder) in get_message(error)

    @pytest.mark.parametrize("read", ["epoch", "raw"])
    @pytest.mark.parametrize("reader", ["petastorm", "pyarrow"])
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    @pytest.mark.parametrize(
        "damage", ["one shorter", "one longer", "one longer, one shorter", "all double", "one null"]
    )
    def test_pixel_rows_of_another_length(self, rows, tmp_path, damage, dtype, reader, read):
        def change(stored, number):
            if number != 4:
                return stored
            values = stored.to_pylist()
            if damage == "one shorter":
                values[3] = values[3][:-1]
            elif damage == "one longer":
                values[3] = values[3] + values[3][:1]
            elif damage == "one longer, one shorter":
                values[3], values[4] = values[3] + values[4][:1], values[4][1:]
            elif damage == "all double":
                values = [pixels + pixels for pixels in values]
            else:
                values[3] = None
            return pa.array(values, stored.type)

        folder = write_dataset(tmp_path, {"train": rows}, dtype=dtype, change_pixels=change)
        with pytest.raises(DatasetError) as error:
            READERS[read](make_loader(folder, reader=reader))
        message = get_message(error)
        # If petastorm itself fails, the message contains that of petastorm.
        assert message.startswith(
            (
                f"{folder}: an image of the train split differs from the manifest",
                f"{folder}: the train split cannot be read",
            )
        )

    def test_values_that_the_normalisation_cannot_produce(self, rows, tmp_path):
        def change(stored, number):
            values = np.stack(stored.to_pylist())
            values[0, 7] += 0.001
            return pa.array(list(values), stored.type) if number == 4 else stored

        folder = write_dataset(tmp_path, {"train": rows}, dtype="float32", change_pixels=change)
        for read in ("epoch", "raw"):
            with pytest.raises(DatasetError) as error:
                READERS[read](make_loader(folder))
            message = get_message(error)
            assert message.startswith(
                f"{folder}: an image of the train split differs from the manifest"
            )
            assert "not produced by this normalisation" in message
            assert "run preprocess again" in message

    def test_images_of_another_size_than_the_manifest_says(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, size=8)
        with pytest.raises(DatasetError, match="differs from the manifest"):
            READERS["epoch"](make_loader(folder))

    def test_an_empty_split(self, dataset):
        with pytest.raises(DatasetError) as error:
            make_loader(dataset, split="validation")
        message = get_message(error)
        assert message.startswith(f"{dataset}: the validation split is empty")
        assert "train (115), validation (0), test (0)" in message

    def test_a_folder_without_a_dataset(self, tmp_path):
        with pytest.raises(DatasetError, match=r"holds no dataset \(no manifest\.json\)"):
            make_loader(tmp_path)


def list_running_threads() -> set[threading.Thread]:
    """Return the threads that Python started.

    A thread of TensorFlow that calls Python once is a dummy thread from then on.
    """
    dummy = threading._DummyThread
    return {thread for thread in threading.enumerate() if not isinstance(thread, dummy)}


def are_threads_stopped(before: set[threading.Thread]) -> bool:
    """Return whether all threads but these end within 5 s."""
    for _ in range(100):
        if list_running_threads() <= before:
            return True
        time.sleep(0.05)
    return False


def count_open_files() -> int:
    """Return the number of file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class TestThreads:
    @pytest.fixture(scope="class")
    def long_dataset(self, rows, tmp_path_factory):
        """A dataset of more row groups than the queues hold."""
        folder = tmp_path_factory.mktemp("long")
        return write_dataset(folder, {"train": rows}, layout=[[1] * 60, [1] * 60])

    @pytest.mark.parametrize(
        "options",
        [{}, {"deterministic": False}, {"cache_in_memory": True}, {"reader": "pyarrow"}],
    )
    @pytest.mark.parametrize("read", ["epoch", "dataset", "raw"])
    def test_an_abandoned_epoch_leaves_no_threads(self, long_dataset, read, options):
        loader = make_loader(long_dataset, 1, shuffle_buffer=4, **options)
        before = list_running_threads()
        start_epoch: dict[str, Callable[[], Iterator[Any]]] = {
            "epoch": lambda: loader.iterate_epoch(0),
            "dataset": lambda: iter(loader.make_tf_dataset(0)),
            "raw": lambda: loader.iterate_stored_batches([]),
        }
        for _ in range(2):
            epoch = start_epoch[read]()
            next(epoch)
            next(epoch)
            del epoch
            assert are_threads_stopped(before)

    @pytest.mark.parametrize("options", [{}, {"deterministic": False}, {"reader": "pyarrow"}])
    def test_a_complete_epoch_leaves_no_threads(self, dataset, options):
        loader = make_loader(dataset, **options)
        before = list_running_threads()
        load_epoch(loader)
        assert are_threads_stopped(before)

    def test_a_failed_epoch_leaves_no_threads(self, rows, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        before = list_running_threads()
        with pytest.raises(DatasetError):
            load_epoch(make_loader(folder))
        assert are_threads_stopped(before)

    @pytest.mark.parametrize("reader", ["petastorm", "pyarrow"])
    def test_many_epochs_leave_no_open_files(self, dataset, reader):
        loader = make_loader(dataset, reader=reader)
        load_epoch(loader)
        before = count_open_files()
        for number in range(5):
            load_epoch(loader, number)
        assert count_open_files() <= before + 2


def test_the_dataset_has_the_row_groups_that_these_tests_assume(dataset, rows):
    groups = [
        [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        for footer in map(pq.read_metadata, sorted((dataset / "split=train").iterdir()))
    ]
    assert groups == [[16, 16, 7], [16, 16, 16, 3], [16, 9]]
    assert len(rows.labels) == ROWS


class TestSoftLabels:
    @pytest.fixture(scope="class")
    def votes(self, rows):
        weights = np.random.default_rng(3).random((ROWS, 3)).astype(np.float32)
        return weights / weights.sum(axis=1, keepdims=True)

    @pytest.fixture(scope="class")
    def dataset_with_votes(self, rows, votes, tmp_path_factory):
        rows_with_votes = dataclasses.replace(rows, votes=votes)
        return write_dataset(tmp_path_factory.mktemp("voted"), {"train": rows_with_votes})

    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"deterministic": False}])
    def test_soft_labels_come_with_their_images(self, rows, dataset_with_votes, votes, options):
        images, soft_labels = load_epoch(
            make_loader(dataset_with_votes, soft_labels=True, **options)
        )
        order = find_order(rows, images)
        assert sorted(order) == list(range(ROWS))
        assert soft_labels.dtype == np.float32
        assert np.array_equal(soft_labels, votes[order])

    def test_labels_stay_hard_unless_votes_exist_and_are_requested(
        self, rows, dataset_with_votes, dataset
    ):
        images, labels = load_epoch(make_loader(dataset_with_votes))
        assert count_rows(images, labels) == count_expected_rows(rows)
        images, labels = load_epoch(make_loader(dataset, soft_labels=True))
        assert count_rows(images, labels) == count_expected_rows(rows)


class TestSkip:
    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"shuffle": False}])
    @pytest.mark.parametrize("skip", [0, 1, 3, 7])
    def test_remaining_batches_are_those_of_the_whole_epoch(self, dataset, options, skip):
        whole = load_batches(make_loader(dataset, **options), 2)
        epoch = make_loader(dataset, **options).open_epoch(2, skip_batches=skip)
        remaining = [(images.numpy(), labels.numpy()) for images, labels in epoch.batches]
        epoch.drain_and_verify()
        assert len(whole) == 8
        assert [i.tobytes() for i, _ in remaining] == [i.tobytes() for i, _ in whole[skip:]]
        assert [n.tolist() for _, n in remaining] == [n.tolist() for _, n in whole[skip:]]


class TestTransform:
    def make_recording_loader(self, dataset: Path, seed: int = 0) -> BatchLoader:
        """Return a loader that halves the pixels and returns labels and seeds as labels."""

        def change(images, labels, seed):
            return images / 2, tf.stack(
                [
                    tf.cast(labels, tf.int64),
                    seed[0] + 0 * tf.cast(labels, tf.int64),
                    seed[1] + 0 * tf.cast(labels, tf.int64),
                ],
                axis=1,
            )

        return make_loader(dataset, transform=change, seed=seed)

    def test_a_transform_gets_pixels_that_are_normalised_afterwards(self, rows, dataset):
        images, changed = load_epoch(self.make_recording_loader(dataset))
        plain, labels = load_epoch(make_loader(dataset))
        # Normalised: (x - 128) / 128.
        np.testing.assert_allclose(images, ((plain * 128 + 128) / 2 - 128) / 128, atol=1e-6)
        assert changed[:, 0].tolist() == labels.tolist()

    def test_each_batch_has_a_seed_that_does_not_depend_on_the_start(self, dataset):
        def list_seeds(number, skip=0, seed=0):
            epoch = self.make_recording_loader(dataset, seed).open_epoch(number, skip_batches=skip)
            return [tuple(labels[0, 1:].numpy().tolist()) for _, labels in epoch.batches]

        assert len(set(list_seeds(0) + list_seeds(1) + list_seeds(0, seed=1))) == 24
        assert list_seeds(1, skip=3) == list_seeds(1)[3:]
