import dataclasses
import functools
import os
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.batch_loader import PADDING_LABEL, BatchLoader, LoaderOptions
from fer_pipeline.learning.input.parquet_reader import Shard

SIZE, ROWS = 16, 115
NORMALIZATIONS = {
    "centered": Normalization.centered(),
    "unit": Normalization.zero_to_one(),
    # The sums of FER2013's 28,709 training images, near enough.
    "standard": Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000),
}
TABLE = NORMALIZATIONS["centered"].lookup_table()


def make_loader(
    folder, batch_size=16, *, split="train", shard=0, shards=1, transform=None, **options
):
    options = LoaderOptions(batch_size, **{"shuffle": True, **options})
    dataset = StoredDataset.open(folder)
    return BatchLoader(
        dataset, Split(split), options, shard=Shard(shard, shards), transform=transform
    )


def load_batches(loader, number=0):
    return [(images.numpy(), labels.numpy()) for images, labels in loader.iterate_epoch(number)]


def load_epoch(loader, number=0):
    parts = load_batches(loader, number)
    return np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts])


def count_rows(images, labels):
    """Whole rows, each with how often it comes."""
    return Counter((i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True))


def expected_rows(rows, table=TABLE):
    return count_rows(table[rows.pixels][..., None], rows.labels)


def find_order(rows, images, table=TABLE):
    """The stored position of each image that was delivered."""
    position = {table[face].tobytes(): row for row, face in enumerate(rows.pixels)}
    return [position[image.tobytes()] for image in images]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def dataset(rows, write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("uint8"), {"train": rows})


@pytest.fixture(scope="module")
def float_dataset(rows, write_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("float32")
    return write_dataset(folder, {"train": rows}, dtype="float32")


@pytest.fixture(params=["uint8", "float32"])
def either(request, dataset, float_dataset):
    return {"uint8": dataset, "float32": float_dataset}[request.param]


# All the ways to read: an epoch is the same rows in each.
WAYS = [
    pytest.param({}, id="by default"),
    pytest.param({"shuffle": False}, id="in stored order"),
    pytest.param({"shuffle_buffer": 20}, id="small buffer"),
    pytest.param({"shuffle_buffer": 1}, id="buffer smaller than a batch"),
    pytest.param({"shuffle_buffer": ROWS}, id="buffer of the split"),
    pytest.param({"batch_size": ROWS}, id="batch of the split"),
    pytest.param({"batch_size": 1000}, id="batch larger than the split"),
    pytest.param({"batch_size": 1, "shuffle_buffer": 1}, id="batch of one"),
    pytest.param({"batch_size": 23}, id="batches without a rest"),
    pytest.param({"deterministic": False}, id="not deterministic"),
    pytest.param({"deterministic": False, "shuffle_buffer": 20}, id="not deterministic, small"),
    pytest.param({"cache_in_memory": True}, id="in memory"),
    pytest.param({"cache_in_memory": True, "shuffle": False}, id="in memory, in stored order"),
]


class TestRows:
    @pytest.mark.parametrize("options", WAYS)
    def test_each_epoch_delivers_each_row_once(self, either, rows, options):
        loader = make_loader(either, **options)
        size = options.get("batch_size", 16)
        for number in range(3):
            found = load_batches(loader, number)
            assert sum((count_rows(*batch) for batch in found), Counter()) == expected_rows(rows)
            full, rest = divmod(ROWS, size)
            assert [len(n) for _, n in found] == [size] * full + [rest] * (rest > 0)
            assert loader.steps_per_epoch == len(found)
            assert loader.row_count == ROWS
            for images, labels in found:
                assert images.dtype == np.float32
                assert images.shape == (len(labels), SIZE, SIZE, 1)
                assert labels.dtype == np.int32

    @pytest.mark.parametrize("cache", [False, True])
    def test_without_shuffling_the_order_is_the_stored_one(self, either, rows, cache):
        loader = make_loader(either, 9, shuffle=False, cache_in_memory=cache)
        for number in (0, 1):
            images, labels = load_epoch(loader, number)
            np.testing.assert_array_equal(images, TABLE[rows.pixels][..., None])
            np.testing.assert_array_equal(labels, rows.labels)

    def test_dataset_is_the_same_pass(self, dataset):
        loader = make_loader(dataset)
        found = [(i.numpy(), n.numpy()) for i, n in loader.make_tf_dataset(3)]
        for one, other in zip(found, load_batches(loader, 3), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
        images, labels = loader.make_tf_dataset(0).element_spec
        assert (images.shape.as_list(), images.dtype) == ([None, SIZE, SIZE, 1], tf.float32)
        assert (labels.shape.as_list(), labels.dtype) == ([None], tf.int32)

    def test_each_split_has_its_own_rows(self, rows, write_dataset, tmp_path):
        parts = {
            "train": type(rows)(rows.pixels[:60], rows.labels[:60]),
            "validation": type(rows)(rows.pixels[60:90], rows.labels[60:90]),
            "test": type(rows)(rows.pixels[90:], rows.labels[90:]),
        }
        folder = write_dataset(tmp_path, parts)
        for split, part in parts.items():
            loader = make_loader(folder, split=split)
            assert count_rows(*load_epoch(loader)) == expected_rows(part)
            assert loader.row_count == len(part.labels)

    def test_files_that_the_manifest_does_not_name_are_ignored(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        inside = folder / "split=train"
        first = min(inside.iterdir())
        (inside / "part-00000-1.parquet").write_bytes(first.read_bytes())
        (inside / "part-99999-1.parquet").write_bytes(b"PAR1 a torn file")
        (inside / "_common_metadata").write_bytes(b"none")
        (inside / "_metadata").write_bytes(b"none")
        (folder / "extra.parquet").write_bytes(first.read_bytes())
        for shards in (1, 2):
            parts = [make_loader(folder, shard=shard, shards=shards) for shard in range(shards)]
            found = sum((count_rows(*load_epoch(loader)) for loader in parts), Counter())
            assert found == expected_rows(rows)

    @pytest.mark.parametrize(
        "name", ["with space", "50% off %41", "a+b=c&d", "a:b", "für", "[a]*", "~"]
    )
    def test_a_folder_may_have_almost_any_name(self, rows, write_dataset, tmp_path, name):
        folder = write_dataset(tmp_path / name, {"train": rows})
        assert count_rows(*load_epoch(make_loader(folder))) == expected_rows(rows)
        assert make_loader(folder, shards=3, shard=2).row_count < ROWS

    @pytest.mark.parametrize(("name", "letter"), [("a#b", "#"), ("what?", "?")])
    def test_a_name_that_petastorm_does_not_read(self, rows, write_dataset, tmp_path, name, letter):
        folder = write_dataset(tmp_path / name, {"train": rows})
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        message = one_line(error)
        assert message.startswith(f"{folder}: ")
        assert f" {letter};" in message

    def test_a_relative_folder(self, dataset, rows, monkeypatch):
        monkeypatch.chdir(dataset.parent)
        loader = make_loader(Path(dataset.name))
        monkeypatch.chdir("/")
        assert count_rows(*load_epoch(loader)) == expected_rows(rows)


class TestOrder:
    @pytest.mark.parametrize("cache", [False, True])
    @pytest.mark.parametrize("buffer", [20, 16384])
    def test_follows_from_seed_and_epoch(self, dataset, cache, buffer):
        make = functools.partial(make_loader, dataset, cache_in_memory=cache, shuffle_buffer=buffer)
        loader = make(seed=5)
        first, second = load_epoch(loader, 0), load_epoch(loader, 1)
        # Whatever was read before, and in whatever loader.
        for again in (load_epoch(loader, 0), load_epoch(make(seed=5), 0)):
            np.testing.assert_array_equal(again[0], first[0])
            np.testing.assert_array_equal(again[1], first[1])
        np.testing.assert_array_equal(load_epoch(make(seed=5), 1)[0], second[0])
        others = [second[0], load_epoch(make(seed=6), 0)[0], load_epoch(make(seed=6), 1)[0]]
        orders = {images.tobytes() for images in [first[0], *others]}
        assert len(orders) == 4

    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"deterministic": False}])
    def test_is_far_from_the_stored_one(self, dataset, rows, options):
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

    def test_row_groups_come_in_another_order_each_epoch(self, dataset, rows):
        # A buffer of a batch mixes within the batch alone: what is left is the order of groups.
        loader = make_loader(dataset, 1, shuffle_buffer=1)
        firsts = {find_order(rows, load_epoch(loader, number)[0])[0] for number in range(6)}
        assert len(firsts) > 1

    def test_not_shuffled_takes_no_seed(self, dataset):
        one = load_epoch(make_loader(dataset, shuffle=False, seed=1), 0)[0]
        np.testing.assert_array_equal(
            one, load_epoch(make_loader(dataset, shuffle=False, seed=2), 1)[0]
        )


class TestPixels:
    @pytest.mark.parametrize("kind", NORMALIZATIONS)
    def test_are_those_of_the_table_whatever_the_dtype(self, rows, write_dataset, tmp_path, kind):
        assert len(np.unique(rows.pixels)) == 256
        table = NORMALIZATIONS[kind].lookup_table()
        found = {}
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
            found[dtype] = load_batches(make_loader(folder, seed=3), 2)
            raw = np.concatenate(
                [pixels for pixels, _ in make_loader(folder).iterate_stored_batches([])]
            )
            np.testing.assert_array_equal(raw, rows.pixels)
        for one, other in zip(found["uint8"], found["float32"], strict=True):
            assert one[0].tobytes() == other[0].tobytes()
            np.testing.assert_array_equal(one[1], other[1])

    @pytest.mark.parametrize("batch_size", [5, 16, 1000])
    def test_raw_is_stored_order_with_origins(self, either, rows, batch_size):
        names = [schema.LABEL, "emotion", *schema.ORIGIN]
        pixels, columns = [], {name: [] for name in names}
        # It neither shuffles nor leaves out, whatever the loader was made for.
        for part, others in make_loader(
            either, batch_size, deterministic=False
        ).iterate_stored_batches(names):
            assert part.dtype == np.uint8
            assert part.shape[1:] == (SIZE, SIZE)
            assert 0 < len(part) <= batch_size
            assert list(others) == names
            pixels.append(part)
            for name in names:
                assert len(others[name]) == len(part)
                columns[name] += others[name].tolist()
        np.testing.assert_array_equal(np.concatenate(pixels), rows.pixels)
        classes = ("angry", "happy", "sad")
        assert columns.pop(schema.LABEL) == rows.labels.tolist()
        assert columns.pop("emotion") == [classes[label] for label in rows.labels]
        origins = [rows.origin(row) for row in range(ROWS)]
        assert columns == {name: [o[name] for o in origins] for name in schema.ORIGIN}

    def test_raw_without_columns(self, dataset, rows):
        found = list(make_loader(dataset).iterate_stored_batches([]))
        assert all(columns == {} for _, columns in found)
        np.testing.assert_array_equal(np.concatenate([p for p, _ in found]), rows.pixels)


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
    def test_are_disjoint_and_together_complete(self, dataset, rows, shards, options):
        loaders = [make_loader(dataset, shard=s, shards=shards, **options) for s in range(shards)]
        assert sum(loader.row_count for loader in loaders) == ROWS
        for number in (0, 1):
            parts = [load_batches(loader, number) for loader in loaders]
            for loader, part in zip(loaders, parts, strict=True):
                sizes = [len(labels) for _, labels in part]
                assert sum(sizes) == loader.row_count
                # Whatever a shard holds, it takes part in every step, with nearly as much.
                assert len(sizes) == loader.steps_per_epoch == loaders[0].steps_per_epoch
                assert max(sizes) - min(sizes) <= 1
            found = sum((count_rows(*batch) for part in parts for batch in part), Counter())
            assert found == expected_rows(rows)

    def test_a_shard_has_the_same_rows_each_epoch(self, dataset):
        loader = make_loader(dataset, shard=1, shards=4)
        assert count_rows(*load_epoch(loader, 0)) == count_rows(*load_epoch(loader, 1))

    def test_raw_of_a_shard(self, dataset, rows):
        found = Counter()
        for shard in range(2):
            for pixels, others in make_loader(
                dataset, shard=shard, shards=2
            ).iterate_stored_batches([schema.LABEL]):
                found += count_rows(TABLE[pixels], others[schema.LABEL])
        assert found == expected_rows(rows)

    def test_many_files(self, rows, write_dataset, tmp_path):
        # Twelve files: the tenth stands after the ninth, not after the first.
        layout = [[10 - number % 2] for number in range(12)] + [[10]]
        folder = write_dataset(tmp_path, {"train": rows}, layout=layout)
        loaders = [make_loader(folder, shard=s, shards=5, shuffle=False) for s in range(5)]
        assert sum(
            (count_rows(*load_epoch(loader)) for loader in loaders), Counter()
        ) == expected_rows(rows)
        np.testing.assert_array_equal(
            load_epoch(make_loader(folder, shuffle=False))[0], TABLE[rows.pixels][..., None]
        )

    def test_have_as_many_steps_as_one_would(self, dataset):
        alone = make_loader(dataset, batch_size=40)
        loaders = [make_loader(dataset, batch_size=40, shard=s, shards=3) for s in range(3)]
        assert {loader.steps_per_epoch for loader in loaders} == {alone.steps_per_epoch} == {3}
        assert {loader.split_row_count for loader in loaders} == {alone.row_count} == {ROWS}

    def test_draw_each_for_itself(self, dataset):
        def drawn(images, labels, seed):
            return images * 0 + tf.cast(seed[0], tf.float32), labels

        loaders = [make_loader(dataset, shard=s, shards=2, transform=drawn) for s in range(2)]
        one, other = (load_batches(loader)[0][0].ravel()[0] for loader in loaders)
        assert one != other
        # The first as one that is alone: a run of one worker is what it was.
        assert one == load_batches(make_loader(dataset, transform=drawn))[0][0].ravel()[0]

    def test_go_on_in_the_middle_of_an_epoch(self, dataset):
        loader = make_loader(dataset, batch_size=20, shard=1, shards=2)
        rest = [labels.numpy() for _, labels in loader.open_epoch(0, skip_batches=2).batches]
        whole = [labels for _, labels in load_batches(loader)]
        assert [part.tolist() for part in rest] == [part.tolist() for part in whole[2:]]

    @pytest.mark.parametrize("cache", [False, True])
    def test_that_validate_fill_up_where_rows_are_fewer_than_steps(self, dataset, rows, cache):
        """Ten shards of nine row groups: the last has no row at all."""
        options = {"batch_size": 10, "shuffle": False, "cache_in_memory": cache}
        loaders = [make_loader(dataset, shard=s, shards=10, **options) for s in range(10)]
        assert loaders[9].row_count == 0
        parts = [load_epoch(loader) for loader in loaders]
        assert all(len(labels) >= 12 == loaders[0].steps_per_epoch for _, labels in parts)
        real = [
            (images[labels != PADDING_LABEL], labels[labels != PADDING_LABEL])
            for images, labels in parts
        ]
        assert sum((count_rows(*part) for part in real), Counter()) == expected_rows(rows)
        assert (parts[9][1] == PADDING_LABEL).all()

    def test_that_train_on_fewer_rows_than_steps(self, dataset):
        with pytest.raises(DatasetError) as error:
            make_loader(dataset, shard=9, shards=10)
        assert one_line(error) == (
            f"{dataset}: reader 10 of 10 has 0 rows of the train split for 8 batches; make more and"
            " smaller row groups with output.row_group_rows, or use fewer workers"
        )


class TestCache:
    def test_needs_the_files_for_the_first_pass_alone(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        loader = make_loader(folder, cache_in_memory=True)
        first = load_epoch(loader, 0)
        for path in (folder / "split=train").iterdir():
            path.unlink()
        assert count_rows(*load_epoch(loader, 1)) == expected_rows(rows)
        np.testing.assert_array_equal(load_epoch(loader, 0)[0], first[0])

    def test_a_pass_that_was_abandoned_leaves_no_torn_cache(self, dataset, rows):
        loader = make_loader(dataset, 4, cache_in_memory=True)
        passing = loader.iterate_epoch(0)
        next(passing)
        passing.close()
        assert count_rows(*load_epoch(loader, 0)) == expected_rows(rows)

    def test_a_pass_that_failed_is_not_kept(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        loader = make_loader(folder, cache_in_memory=True)
        for number in (0, 1):
            with pytest.raises(DatasetError, match="delivered 115 rows, the manifest says 116"):
                load_epoch(loader, number)


def claim_rows(more):
    """A manifest that counts some rows more in the second file than it has."""

    def change(file):
        second = "part-00001" in file.path
        return file.model_copy(update={"rows": file.rows + more * second})

    return change


READS = {
    "epoch": lambda loader: list(loader.iterate_epoch(0)),
    "dataset": lambda loader: list(loader.make_tf_dataset(0)),
    "raw": lambda loader: list(loader.iterate_stored_batches([schema.LABEL])),
}


class TestDamage:
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"deterministic": False}])
    @pytest.mark.parametrize("more", [1, -1])
    def test_another_number_of_rows(self, rows, write_dataset, tmp_path, more, options, read):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(more))
        loader = make_loader(folder, **options)
        message = (
            f"{folder}: an epoch of the train split delivered 115 rows,"
            f" the manifest says {115 + more}; run preprocess again"
        )
        if read == "dataset":
            with pytest.raises(tf.errors.OpError) as error:
                READS[read](loader)
            assert message in str(error.value)
        else:
            with pytest.raises(DatasetError) as error:
                READS[read](loader)
            assert one_line(error) == message

    def test_another_number_of_rows_shows_when_the_epoch_ends(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        passing = make_loader(folder, 23, shuffle=False).iterate_epoch(0)
        found = [next(passing) for _ in range(ROWS // 23)]
        rows_of = (count_rows(images.numpy(), labels.numpy()) for images, labels in found)
        assert sum(rows_of, Counter()) == expected_rows(rows)
        with pytest.raises(DatasetError):
            next(passing)

    def test_a_file_that_is_missing(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        size = path.stat().st_size
        path.unlink()
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        assert one_line(error) == (
            f"{path}: is missing, the manifest says {size} bytes; run preprocess again"
        )

    def test_a_file_of_another_length(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DatasetError) as error:
            make_loader(folder)
        assert one_line(error) == (
            f"{path}: has {size - 1} bytes, the manifest says {size} bytes; run preprocess again"
        )

    @pytest.mark.parametrize("read", ["epoch", "raw"])
    @pytest.mark.parametrize("deterministic", [True, False])
    def test_a_file_that_goes_away_while_it_is_read(
        self, rows, write_dataset, tmp_path, deterministic, read
    ):
        folder = write_dataset(tmp_path, {"train": rows})
        loader = make_loader(folder, deterministic=deterministic)
        path = sorted((folder / "split=train").iterdir())[1]
        path.unlink()
        with pytest.raises(DatasetError) as error:
            READS[read](loader)
        assert str(folder) in one_line(error)

    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"shards": 2}])
    @pytest.mark.parametrize("place", ["pages", "footer", "magic"])
    def test_a_file_that_is_no_parquet_any_more(
        self, rows, write_dataset, tmp_path, place, options
    ):
        folder = write_dataset(tmp_path, {"train": rows})
        path = sorted((folder / "split=train").iterdir())[1]
        content = bytearray(path.read_bytes())
        footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        here = {
            "pages": slice(4, footer),
            "footer": slice(footer, len(content) - 8),
            "magic": slice(len(content) - 4, len(content)),
        }[place]
        content[here] = bytes(byte ^ 0x5A for byte in content[here])
        path.write_bytes(content)

        def read():
            for shard in range(options.get("shards", 1)):
                list(make_loader(folder, **options, shard=shard).iterate_epoch(0))

        with pytest.raises(DatasetError) as error:
            read()
        assert str(folder) in one_line(error)

    @pytest.mark.parametrize("read", ["epoch", "raw"])
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    @pytest.mark.parametrize(
        "damage", ["one shorter", "one longer", "one longer, one shorter", "all double", "one null"]
    )
    def test_pixel_rows_of_another_length(self, rows, write_dataset, tmp_path, damage, dtype, read):
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
                values = [value + value for value in values]
            else:
                values[3] = None
            return pa.array(values, stored.type)

        folder = write_dataset(tmp_path, {"train": rows}, dtype=dtype, change_pixels=change)
        with pytest.raises(DatasetError) as error:
            READS[read](make_loader(folder))
        message = one_line(error)
        # Where petastorm itself stumbles over it, the message is what petastorm says.
        assert message.startswith(
            (
                f"{folder}: an image of the train split differs from the manifest",
                f"{folder}: the train split cannot be read",
            )
        )

    def test_values_that_the_normalisation_does_not_have(self, rows, write_dataset, tmp_path):
        def change(stored, number):
            values = np.stack(stored.to_pylist())
            values[0, 7] += 0.001
            return pa.array(list(values), stored.type) if number == 4 else stored

        folder = write_dataset(tmp_path, {"train": rows}, dtype="float32", change_pixels=change)
        for read in ("epoch", "raw"):
            with pytest.raises(DatasetError) as error:
                READS[read](make_loader(folder))
            assert one_line(error) == (
                f"{folder}: an image of the train split differs from the manifest:"
                " the values were not produced by this normalisation; run preprocess again"
            )

    def test_images_of_another_size_than_the_manifest_says(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, size=8)
        with pytest.raises(DatasetError, match="differs from the manifest"):
            READS["epoch"](make_loader(folder))

    def test_an_empty_split(self, dataset):
        with pytest.raises(DatasetError) as error:
            make_loader(dataset, split="validation")
        assert one_line(error) == (
            f"{dataset}: the validation split is empty;"
            " rows per split: train (115), validation (0), test (0)"
        )

    def test_no_dataset(self, tmp_path):
        with pytest.raises(DatasetError, match=r"holds no dataset \(no manifest\.json\)"):
            make_loader(tmp_path)


def running_threads():
    """The threads that Python started; those of TensorFlow that pass through it stay known."""
    dummy = threading._DummyThread
    return {thread for thread in threading.enumerate() if not isinstance(thread, dummy)}


def wait_until_stopped(before):
    """Whether, before long, no other threads run than before."""
    for _ in range(100):
        if running_threads() <= before:
            return True
        time.sleep(0.05)
    return False


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


class TestThreads:
    @pytest.fixture(scope="class")
    def long_dataset(self, rows, write_dataset, tmp_path_factory):
        """More row groups than all queues hold."""
        folder = tmp_path_factory.mktemp("long")
        return write_dataset(folder, {"train": rows}, layout=[[1] * 60, [1] * 60])

    @pytest.mark.parametrize("options", [{}, {"deterministic": False}, {"cache_in_memory": True}])
    @pytest.mark.parametrize("read", ["epoch", "dataset", "raw"])
    def test_an_abandoned_pass_leaves_none(self, long_dataset, read, options):
        loader = make_loader(long_dataset, 1, shuffle_buffer=4, **options)
        before = running_threads()
        passes = {
            "epoch": lambda: loader.iterate_epoch(0),
            "dataset": lambda: iter(loader.make_tf_dataset(0)),
            "raw": lambda: loader.iterate_stored_batches([]),
        }
        for _ in range(2):
            passing = passes[read]()
            next(passing)
            next(passing)
            del passing
            assert wait_until_stopped(before)

    @pytest.mark.parametrize("deterministic", [True, False])
    def test_a_whole_pass_leaves_none(self, dataset, deterministic):
        loader = make_loader(dataset, deterministic=deterministic)
        before = running_threads()
        load_epoch(loader)
        assert wait_until_stopped(before)

    def test_a_pass_that_failed_leaves_none(self, rows, write_dataset, tmp_path):
        folder = write_dataset(tmp_path, {"train": rows}, change_file=claim_rows(1))
        before = running_threads()
        with pytest.raises(DatasetError):
            load_epoch(make_loader(folder))
        assert wait_until_stopped(before)

    def test_many_passes_leave_no_open_files(self, dataset):
        loader = make_loader(dataset)
        load_epoch(loader)
        before = count_descriptors()
        for number in range(5):
            load_epoch(loader, number)
        assert count_descriptors() <= before + 2


def test_the_layout_is_what_these_tests_say(dataset, rows):
    groups = [
        [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        for footer in map(pq.read_metadata, sorted((dataset / "split=train").iterdir()))
    ]
    assert groups == [[16, 16, 7], [16, 16, 16, 3], [16, 9]]
    assert len(rows.labels) == ROWS


class TestSoftLabels:
    @pytest.fixture(scope="class")
    def votes(self, rows):
        parts = np.random.default_rng(3).random((ROWS, 3)).astype(np.float32)
        return parts / parts.sum(axis=1, keepdims=True)

    @pytest.fixture(scope="class")
    def voted(self, rows, votes, write_dataset, tmp_path_factory):
        with_votes = dataclasses.replace(rows, votes=votes)
        return write_dataset(tmp_path_factory.mktemp("voted"), {"train": with_votes})

    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"deterministic": False}])
    def test_come_with_their_images(self, rows, voted, votes, options):
        images, given = load_epoch(make_loader(voted, soft_labels=True, **options))
        order = find_order(rows, images)
        assert sorted(order) == list(range(ROWS))
        assert given.dtype == np.float32
        assert np.array_equal(given, votes[order])

    def test_only_where_they_are_asked_for(self, rows, voted, dataset):
        images, labels = load_epoch(make_loader(voted))
        assert count_rows(images, labels) == expected_rows(rows)
        images, labels = load_epoch(make_loader(dataset, soft_labels=True))
        assert count_rows(images, labels) == expected_rows(rows)


class TestSkip:
    @pytest.mark.parametrize("options", [{}, {"cache_in_memory": True}, {"shuffle": False}])
    @pytest.mark.parametrize("skip", [0, 1, 3, 7])
    def test_goes_on_where_another_pass_stopped(self, dataset, options, skip):
        whole = load_batches(make_loader(dataset, **options), 2)
        epoch = make_loader(dataset, **options).open_epoch(2, skip_batches=skip)
        rest = [(images.numpy(), labels.numpy()) for images, labels in epoch.batches]
        epoch.drain_and_verify()
        assert len(whole) == 8
        assert [i.tobytes() for i, _ in rest] == [i.tobytes() for i, _ in whole[skip:]]
        assert [n.tolist() for _, n in rest] == [n.tolist() for _, n in whole[skip:]]


class TestTransform:
    """A change that writes down what it was given."""

    def make_recording_loader(self, dataset, seed=0):
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

    def test_sees_pixels_and_is_normalised_afterwards(self, rows, dataset):
        images, changed = load_epoch(self.make_recording_loader(dataset))
        plain, labels = load_epoch(make_loader(dataset))
        # Normalised: (x - 128) / 128.
        np.testing.assert_allclose(images, ((plain * 128 + 128) / 2 - 128) / 128, atol=1e-6)
        assert changed[:, 0].tolist() == labels.tolist()

    def test_has_a_seed_for_each_batch_and_epoch_that_does_not_hang_on_where_one_begins(
        self, dataset
    ):
        def seeds(number, skip=0, seed=0):
            epoch = self.make_recording_loader(dataset, seed).open_epoch(number, skip_batches=skip)
            return [tuple(labels[0, 1:].numpy().tolist()) for _, labels in epoch.batches]

        assert len(set(seeds(0) + seeds(1) + seeds(0, seed=1))) == 24
        assert seeds(1, skip=3) == seeds(1)[3:]
