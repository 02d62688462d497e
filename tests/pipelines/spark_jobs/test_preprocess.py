"""Content of a dataset: pixels, variants, replicas, row groups and the manifest."""

from __future__ import annotations

import datetime
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline import __version__
from fer_pipeline.config import Config, load_config
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from tests.helpers.fer_csv import Image, format_row, make_image, write_csv
from tests.helpers.preprocessed import Prepare, PreprocessedDataset, build_expected_row

# Number of training images of each class, and of validation and of test images of each class.
TRAIN = (120, 30, 110, 150, 120, 100, 120)
EVALUATION = 12
BAD = 6
SETTINGS: dict[str, Any] = {
    "seed": 7,
    "sampling": {"oversample": {"disgust": 4, "fear": 1.5}},
    "variants": {"flip": True, "rotations": [10, -7.5], "border": "replicate"},
    "output": {"files_per_split": 3},
}


@pytest.fixture(scope="module")
def input_rows() -> list[tuple[int, Image, str]]:
    """The label, image and usage of each row, sorted by class."""
    labels = np.repeat(range(7), TRAIN).tolist()
    rows = [(label, make_image(number), "Training") for number, label in enumerate(labels)]
    for usage, first in (("PublicTest", 1000), ("PrivateTest", 2000)):
        evaluated = np.repeat(range(7), EVALUATION).tolist()
        rows += [(label, make_image(first + n), usage) for n, label in enumerate(evaluated)]
    return rows


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, input_rows: list[tuple[int, Image, str]]
) -> Path:
    path = tmp_path_factory.mktemp("source") / "sorted.csv"
    rows = [format_row(*row) for row in input_rows]
    # A copy of a training image, and a few broken rows.
    rows += [rows[0], *["broken"] * BAD]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    return path


@pytest.fixture(scope="module")
def dataset(prepare: Prepare, source: Path) -> PreprocessedDataset:
    """A dataset of sorted input, with all kinds of variants."""
    return prepare(source, image={"size": 8, "normalization": "standard"}, **SETTINGS)


@pytest.fixture(scope="module")
def float_dataset(prepare: Prepare, source: Path) -> PreprocessedDataset:
    """The dataset with normalised values in place of the pixels."""
    image = {"size": 8, "normalization": "standard", "dtype": "float32"}
    return prepare(source, image=image, **SETTINGS)


def rotate(image: Image, angle: float) -> np.ndarray:
    """Rotate an image counter-clockwise about its centre."""
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), angle, 1.0)
    return cv2.warpAffine(
        image, matrix, (8, 8), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


VARIANTS = {
    "flip": lambda image: cv2.flip(image, 1),
    "original": lambda image: image,
    "rotate+10": lambda image: rotate(image, 10),
    "rotate-7.5": lambda image: rotate(image, -7.5),
}


def test_each_row_is_a_variant_of_its_image(dataset, input_rows, source) -> None:
    records_with_two_replicas = {
        row["record"] for row in dataset.rows if row["label"] == 2 and row["replica"] == 1
    }
    assert len(records_with_two_replicas) == TRAIN[2] // 2
    expected = []
    for record, (label, image, usage) in enumerate(input_rows):
        if usage != "Training":
            split = "validation" if usage == "PublicTest" else "test"
            expected.append(build_expected_row(source, record, label, image, split))
            continue
        replica_count = 4 if label == 1 else 2 if record in records_with_two_replicas else 1
        for name, apply in VARIANTS.items():
            for replica in range(replica_count):
                row = build_expected_row(
                    source, record, label, apply(image), "train", name, replica, original=image
                )
                expected.append(row)

    assert dataset.rows == expected


def test_rotations_are_counter_clockwise(prepare, tmp_path) -> None:
    file = write_csv(tmp_path / "a.csv", [format_row(n, make_image(n)) for n in range(3)])

    dataset = prepare(file, variants={"rotations": [90, -90, 180]})

    images_by_row = {(row["record"], row["variant"]): row["image"] for row in dataset.rows}
    assert images_by_row == {
        (n, name): np.rot90(make_image(n), quarters).tobytes()
        for n in range(3)
        for name, quarters in (
            ("original", 0),
            ("rotate+90", 1),
            ("rotate-90", -1),
            ("rotate+180", 2),
        )
    }


def test_balanced_classes_have_equal_counts(prepare, tmp_path) -> None:
    sizes = (23, 3, 10, 23, 7, 12, 1)
    labels = np.repeat(range(7), sizes).tolist()
    rows = [format_row(label, make_image(n)) for n, label in enumerate(labels)]
    rows += [format_row(label, make_image(100 + label), "PrivateTest") for label in (0, 1, 1)]
    file = write_csv(tmp_path / "a.csv", rows)

    dataset = prepare(file, sampling={"balance": True}, variants={"flip": True})

    assert dataset.manifest.counts["train"] == dict.fromkeys(FER2013, 46)
    assert dataset.manifest.counts["test"] == {
        **dict.fromkeys(FER2013, 0),
        "angry": 1,
        "disgust": 2,
    }
    counts_by_record = Counter(
        (row["label"], row["record"]) for row in dataset.rows if row["variant"] == "flip"
    )
    for label, size in enumerate(sizes):
        # The replica counts of the images of a class differ by at most one.
        replica_counts = [n for (of, _), n in counts_by_record.items() if of == label]
        assert len(replica_counts) == size
        assert sum(replica_counts) == 23
        assert max(replica_counts) - min(replica_counts) <= 1


def test_standard_normalization_is_computed_from_the_training_originals(
    dataset, input_rows
) -> None:
    pixels = np.stack([image for _, image, usage in input_rows if usage == "Training"]).astype(
        float
    )
    normalization = dataset.manifest.image.normalization

    assert normalization.kind == "standard"
    assert normalization.scale == pytest.approx(1 / pixels.std(), rel=1e-7)
    assert normalization.offset == pytest.approx(-pixels.mean() / pixels.std(), rel=1e-7)


def test_stored_floats_are_the_normalized_pixels(dataset, float_dataset) -> None:
    table = dataset.manifest.image.normalization.lookup_table()
    assert table.dtype == np.float32

    assert float_dataset.manifest.image.normalization == dataset.manifest.image.normalization
    assert float_dataset.manifest.image.dtype == "float32"
    assert float_dataset.manifest.checksum == dataset.manifest.checksum
    assert len(float_dataset.rows) == len(dataset.rows)
    for floats, pixels in zip(float_dataset.rows, dataset.rows, strict=True):
        values = np.array(floats["image"], np.float32)
        assert values.tobytes() == table[np.frombuffer(pixels["image"], np.uint8)].tobytes()
        assert {**floats, "image": None} == {**pixels, "image": None}


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("centered", lambda x: (x - 128) / 128), ("unit", lambda x: x / 255)],
)
def test_other_normalizations_follow_their_formula(prepare, tmp_path, kind, formula) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = write_csv(tmp_path / "a.csv", [format_row(0, pixels)])

    dataset = prepare(file, image={"size": 16, "dtype": "float32", "normalization": kind})

    expected = formula(pixels.astype(float)).ravel()
    np.testing.assert_allclose(dataset.rows[0]["image"], expected, rtol=2e-7, atol=0)
    assert dataset.manifest.image.normalization.kind == kind


@pytest.mark.parametrize(
    ("fixture", "image_type"),
    [("dataset", pa.binary()), ("float_dataset", pa.list_(pa.float32()))],
)
def test_columns_have_the_documented_types(request, fixture, image_type) -> None:
    dataset = request.getfixturevalue(fixture)
    expected = {
        "image": image_type,
        "label": pa.int32(),
        "emotion": pa.string(),
        "source": pa.string(),
        "record": pa.int64(),
        "image_hash": pa.string(),
        "variant": pa.string(),
        "replica": pa.int32(),
    }

    for file in dataset.manifest.files:
        stored_schema = pq.ParquetFile(dataset.folder / file.path).schema_arrow
        assert dict(zip(stored_schema.names, stored_schema.types, strict=True)) == expected


def test_there_may_be_more_files_than_rows(prepare, tmp_path) -> None:
    usages = ("Training", "Training", "PublicTest")
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), usages[n]) for n in range(3)]
    )

    dataset = prepare(file, output={"files_per_split": 9})

    splits = ("train", "train", "validation")
    assert dataset.rows == [
        build_expected_row(file, n, n, make_image(n), splits[n]) for n in range(3)
    ]
    assert all(file.rows for file in dataset.manifest.files)


def read_row_groups(dataset: PreprocessedDataset, split: str) -> list[list[int]]:
    """Return the labels in each row group, in stored order."""
    groups = []
    for file in dataset.manifest.files_in(Split(split)):
        parquet_file = pq.ParquetFile(dataset.folder / file.path)
        for group in range(parquet_file.num_row_groups):
            groups.append(parquet_file.read_row_group(group, ["label"]).column(0).to_pylist())
    return groups


def test_there_are_enough_row_groups_for_many_readers(dataset) -> None:
    assert len(read_row_groups(dataset, "train")) >= 64


def test_random_splits_have_enough_row_groups_for_many_readers(prepare, tmp_path) -> None:
    rows = [format_row(n % 7, make_image(n)) for n in range(4096)]

    dataset = prepare(
        write_csv(tmp_path / "a.csv", rows),
        split={"method": "stratified"},
        output={"files_per_split": 2},
    )

    groups = read_row_groups(dataset, "train")
    assert sum(map(len, groups)) == dataset.manifest.row_count(Split.TRAIN) > 3200
    assert len(groups) >= 64


def test_the_row_group_size_is_configurable(prepare, tmp_path) -> None:
    file = write_csv(tmp_path / "a.csv", [format_row(n % 7, make_image(n)) for n in range(40)])

    dataset = prepare(
        file, output={"files_per_split": 1, "row_group_rows": 9, "compression": "snappy"}
    )

    assert list(map(len, read_row_groups(dataset, "train"))) == [9, 9, 9, 9, 4]
    path = dataset.folder / dataset.manifest.files[0].path
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"


def test_row_groups_hold_mixed_classes(dataset) -> None:
    # The input is sorted by class.
    for labels in read_row_groups(dataset, "train")[:8]:
        counts = Counter(labels)
        assert len(counts) >= 6
        assert counts.most_common(1)[0][1] < len(labels) / 2


def test_variants_of_an_image_are_rarely_neighbours(dataset) -> None:
    for file in dataset.manifest.files_in(Split.TRAIN):
        records = pq.ParquetFile(dataset.folder / file.path).read(["record"]).column(0).to_numpy()
        # A few of some thousand pairs of neighbours are of one image by chance.
        assert (records[1:] == records[:-1]).mean() < 0.05


def test_the_manifest_describes_the_stored_files(dataset) -> None:
    files = dataset.manifest.files
    on_disk = {str(p.relative_to(dataset.folder)) for p in dataset.folder.glob("split=*/*")}

    assert {file.path for file in files} == on_disk
    assert len(on_disk) == 9
    for file in files:
        path = dataset.folder / file.path
        assert file.path.startswith(f"split={file.split}/")
        assert file.bytes == path.stat().st_size
        assert file.rows == pq.ParquetFile(path).metadata.num_rows
    assert [dataset.folder / path for path in dataset.manifest.quarantine] == list(
        dataset.folder.glob("quarantine/*")
    )


def test_the_counts_in_the_manifest_add_up(dataset, source, input_rows) -> None:
    manifest, rows = dataset.manifest, dataset.manifest.rows
    written = Counter((row["split"], row["emotion"]) for row in dataset.rows)
    originals = Counter(
        (row["split"], row["emotion"])
        for row in dataset.rows
        if row["variant"] == "original" and row["replica"] == 0
    )

    assert manifest.counts == {s: {name: written[s, name] for name in FER2013} for s in Split}
    assert rows.kept == {s: {name: originals[s, name] for name in FER2013} for s in Split}
    assert rows.kept["train"] == dict(zip(FER2013, TRAIN, strict=True))
    assert rows.written == len(dataset.rows)
    assert rows.read == len(input_rows) + 1 + BAD
    assert rows.dropped == {**dict.fromkeys(DropReason, 0), DropReason.COPY: 1}
    assert rows.quarantined == {**dict.fromkeys(QuarantineReason, 0), QuarantineReason.BROKEN: BAD}
    assert len(dataset.quarantine) == BAD
    assert [(s.path, s.records, s.quarantined) for s in manifest.sources] == [
        (str(source), rows.read, BAD)
    ]


def test_the_manifest_records_configuration_and_versions(dataset) -> None:
    manifest = dataset.manifest
    config = Config(image={"size": 8, "normalization": "standard"}, **SETTINGS)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(manifest.created)

    assert (manifest.format, manifest.format_version) == ("fer_pipeline dataset", 2)
    assert datetime.timedelta(seconds=-1) < age < datetime.timedelta(hours=1)
    assert (manifest.image.size, manifest.image.dtype) == (8, "uint8")
    assert manifest.classes == list(FER2013)
    assert manifest.config == config.to_dict()
    assert load_config(dataset.folder / "config.yaml") == config
    assert manifest.versions["fer_pipeline"] == __version__
    for name in ("pyspark", "pyarrow", "numpy", "opencv-python-headless"):
        assert manifest.versions[name] == version(name)


def test_a_fingerprint_depends_on_the_content_only(prepare, tmp_path) -> None:
    rows = [format_row(n % 7, make_image(n)) for n in range(20)]
    pixel = make_image(3).copy()
    pixel[0, 0] ^= 1
    shortened_rows = rows[:19]
    files = {
        "same": rows,
        "shuffled": rows[::-1],
        "blank lines": [text for row in rows for text in (row, "")],
        "one pixel": [*rows[:3], format_row(3, pixel), *rows[4:]],
        "one label": [*rows[:3], format_row(4, make_image(3)), *rows[4:]],
        "one usage": [*rows[:3], format_row(3, make_image(3), "PublicTest"), *rows[4:]],
        "one row less": shortened_rows,
        "one row twice": [*rows, rows[0]],
        "one bad row": [*shortened_rows, "a"],
        "another bad row": [*shortened_rows, "b"],
    }
    for name, lines in files.items():
        write_csv(tmp_path / f"in/{name}.csv", lines)
    folder = write_csv(tmp_path / "in/again.csv", rows).parent

    dataset = prepare(folder, input={"max_quarantined_fraction": 0.1})

    fingerprints = {source.path: source.fingerprint for source in dataset.manifest.sources}
    equal_fingerprints = {
        fingerprints.pop(str(folder / f"{name}.csv")) for name in ("again", *list(files)[:3])
    }
    assert len(equal_fingerprints) == 1
    assert len(equal_fingerprints | set(fingerprints.values())) == 8
    assert all(len(text) == 16 and int(text, 16) for text in fingerprints.values())
