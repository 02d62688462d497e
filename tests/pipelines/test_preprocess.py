"""What a dataset holds: pixels, variants, copies, row groups, the manifest."""

from __future__ import annotations

import datetime
from collections import Counter
from importlib.metadata import version

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline import __version__
from fer_pipeline.config import Config, load_config
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import build_expected_row

# Training images by class, and then as many of each class for validation and for test.
TRAIN = (120, 30, 110, 150, 120, 100, 120)
EVALUATION = 12
BAD = 6
SETTINGS = {
    "seed": 7,
    "sampling": {"oversample": {"disgust": 4, "fear": 1.5}},
    "variants": {"flip": True, "rotations": [10, -7.5], "border": "replicate"},
    "output": {"files_per_split": 3},
}


@pytest.fixture(scope="module")
def shown():
    """The label, image and usage of each row, all of one class after another."""
    labels = np.repeat(range(7), TRAIN).tolist()
    rows = [(label, make_image(number), "Training") for number, label in enumerate(labels)]
    for usage, first in (("PublicTest", 1000), ("PrivateTest", 2000)):
        evaluated = np.repeat(range(7), EVALUATION).tolist()
        rows += [(label, make_image(first + n), usage) for n, label in enumerate(evaluated)]
    return rows


@pytest.fixture(scope="module")
def source(tmp_path_factory, shown):
    path = tmp_path_factory.mktemp("source") / "sorted.csv"
    rows = [format_row(*row) for row in shown]
    # A copy of a training image at the end, and a few rows that are none.
    rows += [rows[0], *["broken"] * BAD]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    return path


@pytest.fixture(scope="module")
def made(prepare, source):
    """The dataset that most of these tests look at: sorted input, all kinds of variants."""
    return prepare(source, image={"size": 8, "normalization": "standard"}, **SETTINGS)


@pytest.fixture(scope="module")
def made_of_floats(prepare, source):
    """The same with normalised values in place of the pixels."""
    image = {"size": 8, "normalization": "standard", "dtype": "float32"}
    return prepare(source, image=image, **SETTINGS)


def turned(image: np.ndarray, angle: float) -> np.ndarray:
    """Counter-clockwise about the centre."""
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), angle, 1.0)
    return cv2.warpAffine(
        image, matrix, (8, 8), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


VARIANTS = {
    "flip": lambda image: cv2.flip(image, 1),
    "original": lambda image: image,
    "rotate+10": lambda image: turned(image, 10),
    "rotate-7.5": lambda image: turned(image, -7.5),
}


def test_every_row_is_a_variant_of_its_image(made, shown, source) -> None:
    twice = {row["record"] for row in made.rows if row["label"] == 2 and row["replica"] == 1}
    assert len(twice) == TRAIN[2] // 2
    expected = []
    for record, (label, image, usage) in enumerate(shown):
        if usage != "Training":
            split = "validation" if usage == "PublicTest" else "test"
            expected.append(build_expected_row(source, record, label, image, split))
            continue
        copies = 4 if label == 1 else 2 if record in twice else 1
        for name, apply in VARIANTS.items():
            for copy in range(copies):
                row = build_expected_row(
                    source, record, label, apply(image), "train", name, copy, original=image
                )
                expected.append(row)

    assert made.rows == expected


def test_rotations_are_counter_clockwise(prepare, tmp_path) -> None:
    file = write_csv(tmp_path / "a.csv", [format_row(n, make_image(n)) for n in range(3)])

    made = prepare(file, variants={"rotations": [90, -90, 180]})

    found = {(row["record"], row["variant"]): row["image"] for row in made.rows}
    assert found == {
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

    made = prepare(file, sampling={"balance": True}, variants={"flip": True})

    assert made.manifest.counts["train"] == dict.fromkeys(FER2013, 46)
    assert made.manifest.counts["test"] == {**dict.fromkeys(FER2013, 0), "angry": 1, "disgust": 2}
    copies = Counter((row["label"], row["record"]) for row in made.rows if row["variant"] == "flip")
    for label, size in enumerate(sizes):
        # No image of a class is written more than once oftener than another.
        found = [n for (of, _), n in copies.items() if of == label]
        assert len(found) == size
        assert sum(found) == 23
        assert max(found) - min(found) <= 1


def test_standard_is_that_of_the_training_originals(made, shown) -> None:
    pixels = np.stack([image for _, image, usage in shown if usage == "Training"]).astype(float)
    normalization = made.manifest.image.normalization

    assert normalization.kind == "standard"
    assert normalization.scale == pytest.approx(1 / pixels.std(), rel=1e-7)
    assert normalization.offset == pytest.approx(-pixels.mean() / pixels.std(), rel=1e-7)


def test_floats_are_the_table_at_the_pixels(made, made_of_floats) -> None:
    table = made.manifest.image.normalization.lookup_table()
    assert table.dtype == np.float32

    assert made_of_floats.manifest.image.normalization == made.manifest.image.normalization
    assert made_of_floats.manifest.image.dtype == "float32"
    assert made_of_floats.manifest.checksum == made.manifest.checksum
    assert len(made_of_floats.rows) == len(made.rows)
    for floats, pixels in zip(made_of_floats.rows, made.rows, strict=True):
        values = np.array(floats["image"], np.float32)
        assert values.tobytes() == table[np.frombuffer(pixels["image"], np.uint8)].tobytes()
        assert {**floats, "image": None} == {**pixels, "image": None}


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("centered", lambda x: (x - 128) / 128), ("unit", lambda x: x / 255)],
)
def test_other_normalisations(prepare, kind, formula, tmp_path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file = write_csv(tmp_path / "a.csv", [format_row(0, pixels)])

    made = prepare(file, image={"size": 16, "dtype": "float32", "normalization": kind})

    expected = formula(pixels.astype(float)).ravel()
    np.testing.assert_allclose(made.rows[0]["image"], expected, rtol=2e-7, atol=0)
    assert made.manifest.image.normalization.kind == kind


@pytest.mark.parametrize(
    ("dataset", "image"),
    [("made", pa.binary()), ("made_of_floats", pa.list_(pa.float32()))],
)
def test_columns_are_plain(request, dataset, image) -> None:
    made = request.getfixturevalue(dataset)
    expected = {
        "image": image,
        "label": pa.int32(),
        "emotion": pa.string(),
        "source": pa.string(),
        "record": pa.int64(),
        "image_hash": pa.string(),
        "variant": pa.string(),
        "replica": pa.int32(),
    }

    for file in made.manifest.files:
        found = pq.ParquetFile(made.folder / file.path).schema_arrow
        assert dict(zip(found.names, found.types, strict=True)) == expected


def test_more_partitions_than_rows(prepare, tmp_path) -> None:
    usages = ("Training", "Training", "PublicTest")
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), usages[n]) for n in range(3)]
    )

    made = prepare(file, output={"files_per_split": 9})

    splits = ("train", "train", "validation")
    assert made.rows == [build_expected_row(file, n, n, make_image(n), splits[n]) for n in range(3)]
    assert all(file.rows for file in made.manifest.files)


def _groups(made, split: str) -> list[list[int]]:
    """The labels in each row group, in the order in which they are read."""
    found = []
    for file in made.manifest.files_in(Split(split)):
        reader = pq.ParquetFile(made.folder / file.path)
        for group in range(reader.num_row_groups):
            found.append(reader.read_row_group(group, ["label"]).column(0).to_pylist())
    return found


def test_many_readers_can_share_the_row_groups(made) -> None:
    assert len(_groups(made, "train")) >= 64


def test_many_readers_can_share_what_is_left_of_drawn_splits(prepare, tmp_path) -> None:
    rows = [format_row(n % 7, make_image(n)) for n in range(4096)]

    made = prepare(
        write_csv(tmp_path / "a.csv", rows),
        split={"method": "stratified"},
        output={"files_per_split": 2},
    )

    groups = _groups(made, "train")
    assert sum(map(len, groups)) == made.manifest.row_count(Split.TRAIN) > 3200
    assert len(groups) >= 64


def test_the_rows_of_a_row_group_can_be_set(prepare, tmp_path) -> None:
    file = write_csv(tmp_path / "a.csv", [format_row(n % 7, make_image(n)) for n in range(40)])

    made = prepare(
        file, output={"files_per_split": 1, "row_group_rows": 9, "compression": "snappy"}
    )

    assert list(map(len, _groups(made, "train"))) == [9, 9, 9, 9, 4]
    path = made.folder / made.manifest.files[0].path
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "SNAPPY"


def test_row_groups_hold_mixed_classes(made) -> None:
    """Of rows that came sorted by class."""
    for labels in _groups(made, "train")[:8]:
        counts = Counter(labels)
        assert len(counts) >= 6
        assert counts.most_common(1)[0][1] < len(labels) / 2


def test_variants_of_an_image_stand_apart(made) -> None:
    for file in made.manifest.files_in(Split.TRAIN):
        records = pq.ParquetFile(made.folder / file.path).read(["record"]).column(0).to_numpy()
        # Of some thousand rows a few neighbours are of one image by chance.
        assert (records[1:] == records[:-1]).mean() < 0.05


def test_the_manifest_names_the_files_as_they_are(made) -> None:
    files = made.manifest.files
    on_disk = {str(p.relative_to(made.folder)) for p in made.folder.glob("split=*/*")}

    assert {file.path for file in files} == on_disk
    assert len(on_disk) == 9
    for file in files:
        path = made.folder / file.path
        assert file.path.startswith(f"split={file.split}/")
        assert file.bytes == path.stat().st_size
        assert file.rows == pq.ParquetFile(path).metadata.num_rows
    assert [made.folder / path for path in made.manifest.quarantine] == list(
        made.folder.glob("quarantine/*")
    )


def test_the_manifest_keeps_the_books(made, source, shown) -> None:
    manifest, rows = made.manifest, made.manifest.rows
    written = Counter((row["split"], row["emotion"]) for row in made.rows)
    originals = Counter(
        (row["split"], row["emotion"])
        for row in made.rows
        if row["variant"] == "original" and row["replica"] == 0
    )

    assert manifest.counts == {s: {name: written[s, name] for name in FER2013} for s in Split}
    assert rows.kept == {s: {name: originals[s, name] for name in FER2013} for s in Split}
    assert rows.kept["train"] == dict(zip(FER2013, TRAIN, strict=True))
    assert rows.written == len(made.rows)
    assert rows.read == len(shown) + 1 + BAD
    assert rows.dropped == {**dict.fromkeys(DropReason, 0), DropReason.COPY: 1}
    assert rows.quarantined == {**dict.fromkeys(QuarantineReason, 0), QuarantineReason.BROKEN: BAD}
    assert len(made.quarantine) == BAD
    assert [(s.path, s.records, s.quarantined) for s in manifest.sources] == [
        (str(source), rows.read, BAD)
    ]


def test_the_manifest_says_what_it_was_made_with(made) -> None:
    manifest = made.manifest
    chosen = Config(image={"size": 8, "normalization": "standard"}, **SETTINGS)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(manifest.created)

    assert (manifest.format, manifest.format_version) == ("fer_pipeline dataset", 2)
    assert datetime.timedelta(seconds=-1) < age < datetime.timedelta(hours=1)
    assert (manifest.image.size, manifest.image.dtype) == (8, "uint8")
    assert manifest.classes == list(FER2013)
    assert manifest.config == chosen.to_dict()
    assert load_config(made.folder / "config.yaml") == chosen
    assert manifest.versions["fer_pipeline"] == __version__
    for name in ("pyspark", "pyarrow", "numpy", "opencv-python-headless"):
        assert manifest.versions[name] == version(name)


def test_a_fingerprint_is_of_the_content(prepare, tmp_path) -> None:
    rows = [format_row(n % 7, make_image(n)) for n in range(20)]
    pixel = make_image(3).copy()
    pixel[0, 0] ^= 1
    bad = rows[:19]
    files = {
        "same": rows,
        "shuffled": rows[::-1],
        "blank lines": [text for row in rows for text in (row, "")],
        "one pixel": [*rows[:3], format_row(3, pixel), *rows[4:]],
        "one label": [*rows[:3], format_row(4, make_image(3)), *rows[4:]],
        "one usage": [*rows[:3], format_row(3, make_image(3), "PublicTest"), *rows[4:]],
        "one row less": bad,
        "one row twice": [*rows, rows[0]],
        "one bad row": [*bad, "a"],
        "another bad row": [*bad, "b"],
    }
    for name, lines in files.items():
        write_csv(tmp_path / f"in/{name}.csv", lines)
    folder = write_csv(tmp_path / "in/again.csv", rows).parent

    made = prepare(folder, input={"max_quarantined_fraction": 0.1})

    prints = {source.path: source.fingerprint for source in made.manifest.sources}
    same = {prints.pop(str(folder / f"{name}.csv")) for name in ("again", *list(files)[:3])}
    assert len(same) == 1
    assert len(same | set(prints.values())) == 8
    assert all(len(text) == 16 and int(text, 16) for text in prints.values())
