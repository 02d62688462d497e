"""The stage `score`, with a real model in real workers.

What it should say of an image is worked out beside it: decoded, resized and given to Keras here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data import synthetic
from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.scores import ScoreManifest
from fer_pipeline.errors import ConfigError, DatasetError, InputError, RunError, StorageError
from fer_pipeline.io.output_kinds import IN_PROGRESS_FILE
from fer_pipeline.jobs import score as jobs_score
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.pipelines.export import export
from fer_pipeline.pipelines.score import format_report, score
from fer_pipeline.spark.error_messages import translate_spark_errors
from tests.helpers import finished_run

CLASSES = ("angry", "happy", "sad")
SIZE = 12
COLUMNS = [
    *("source", "record", "image_hash", "variant", "replica", "emotion", "confidence"),
    *(f"p_{name}" for name in CLASSES),
    *("reason", "detail"),
]
# A worker's batches are not those of Keras's `predict`, and sums of floats hang on their order.
TOLERANCE = 1e-6


# --- A model, and what it says.


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    model: keras.Model
    enhancement: Enhancement

    def says(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Its probabilities for grey images of any size."""
        better = [enhance(picture, self.enhancement) for picture in pictures]
        pixels = np.stack([resize(picture, SIZE) for picture in better])
        return self.model.predict(pixels[..., None].astype(np.float32), verbose=0)


def make_run(folder: Path, seed: int = 0, enhancement: Enhancement | None = None) -> Run:
    """A small network with large random weights: a pixel that is off by a few is seen."""
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(CLASSES), kernel_initializer=keras.initializers.RandomNormal()),
        ]
    )
    enhancement = enhancement or Enhancement()
    model = serving_model.build_serving_model(network, SIZE, Normalization.centered())
    finished_run.save(folder, model, CLASSES, enhancement=enhancement, best_accuracy=0.5)
    return Run(folder, model, enhancement)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@dataclass(frozen=True)
class Found:
    """Scores as a reader sees them: the files that `scores.json` names, read by pyarrow alone."""

    folder: Path
    about: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Found:
        about = json.loads((folder / "scores.json").read_text())
        rows: list[dict[str, Any]] = []
        for file in about["files"]:
            assert (folder / file["path"]).stat().st_size == file["bytes"]
            part = pq.ParquetFile(folder / file["path"]).read()
            assert (part.schema.names, len(part)) == (COLUMNS, file["rows"])
            rows += part.to_pylist()
        return cls(folder, about, sorted(rows, key=lambda row: (row["source"], row["record"])))


@pytest.fixture(scope="session")
def scored(spark, tmp_path_factory) -> Callable[..., Found]:
    """Runs the stage and reads what it wrote; `settings` are configuration."""

    def run(
        model: Run | Path,
        *inputs: Path | str,
        to: Path | None = None,
        overwrite: bool = False,
        settings: tuple[str, ...] = (),
    ) -> Found:
        folder = to or tmp_path_factory.mktemp("scored") / "scores"
        source = model.folder if isinstance(model, Run) else model
        with translate_spark_errors():
            made = score(
                spark,
                str(source),
                [str(path) for path in inputs],
                str(folder),
                load_config(None, settings),
                overwrite=overwrite,
            )
        found = Found.read(folder)
        assert found.about == made.model_dump(mode="json")
        return found

    return run


@pytest.fixture
def small_tasks(spark) -> Iterator[None]:
    """Tasks of 20 kB: the files of a folder and the blocks of a CSV file are shared by many."""
    keys = ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    before = {key: spark.conf.get(key) for key in keys}
    for key in keys:
        spark.conf.set(key, "20000")
    yield
    for key, value in before.items():
        spark.conf.set(key, value)


def image_hash(image: np.ndarray) -> str:
    content = struct.pack("<II", *image.shape) + image.tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def expect_scored(rows: list[dict[str, Any]], run: Run, pictures: list[np.ndarray]) -> None:
    """The rows say of these images what the model says, and no more."""
    probabilities = run.says(pictures)
    given = np.array([[row[f"p_{name}"] for name in CLASSES] for row in rows], np.float32)
    assert given == pytest.approx(probabilities, abs=TOLERANCE)
    assert [row["confidence"] for row in rows] == given.max(axis=1).tolist()
    assert [row["emotion"] for row in rows] == [CLASSES[best] for best in given.argmax(axis=1)]
    assert {(row["reason"], row["detail"]) for row in rows} == {(None, None)}
    # A model that says one thing of all images would hide a mistake.
    assert len({row["emotion"] for row in rows}) > 1
    assert np.ptp(given, axis=0).min() > 0.03


def expect_unscored(row: Mapping[str, Any], reason: str, detail: str) -> None:
    assert (row["reason"], row["detail"]) == (reason, detail)
    assert row["image_hash"] is None
    assert {row["emotion"], row["confidence"], *(row[f"p_{name}"] for name in CLASSES)} == {None}


def expect_books(found: Found) -> None:
    """What `scores.json` counts is what its files hold."""
    about, rows = found.about, found.rows
    shown = Counter(row["emotion"] for row in rows if row["reason"] is None)
    assert about["images"] == len(rows) == about["scored"] + sum(about["unscored"].values())
    assert about["scored"] == sum(about["emotions"].values())
    assert about["emotions"] == {name: shown[name] for name in CLASSES}
    assert about["unscored"] == Counter(row["reason"] for row in rows if row["reason"])


def on_disk(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def named(found: Found) -> set[str]:
    return {"scores.json", "config.yaml", *(file["path"] for file in found.about["files"])}


# --- A folder of crops.


def _encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


@dataclass(frozen=True)
class Folder:
    """Image files: what OpenCV makes of each, or the reason and the detail of having no score."""

    root: Path
    sound: dict[str, np.ndarray]
    broken: dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def crops(tmp_path_factory, picture) -> Folder:
    """Files of every kind, in folders whose names mean nothing here."""
    root = tmp_path_factory.mktemp("crops") / "földer with [crops]"
    noise = np.random.default_rng(5)
    colour = noise.integers(0, 256, (31, 19, 3), np.uint8)
    alpha = noise.integers(0, 256, (9, 14, 4), np.uint8)
    deep = noise.integers(0, 2**16, (20, 20), np.uint16)
    jpeg = _encoded(
        ".jpg", cv2.GaussianBlur(noise.integers(0, 256, (64, 64, 3), np.uint8), (9, 9), 3)
    )
    sound = {
        "grey.png": _encoded(".png", picture(1, SIZE)),
        "GREY.PNG": _encoded(".png", picture(2, 30)),
        "tiny.png": _encoded(".png", picture(3, 8)),
        "wide.bmp": _encoded(".bmp", picture(5, 50)[:10]),
        "tall.tiff": _encoded(".tiff", picture(6, 50)[:, :8]),
        "colour.png": _encoded(".png", colour),
        "alpha.png": _encoded(".png", alpha),
        "16 bits.png": _encoded(".png", deep),
        "photo.jpg": jpeg,
        "grey photo.jpeg": _encoded(".jpeg", picture(7, 24), cv2.IMWRITE_JPEG_QUALITY, 60),
        "a jpeg in truth.png": jpeg,
        "without a suffix": _encoded(".png", picture(8, 16)),
        "train/angry/käse 100%.png": _encoded(".png", picture(9, 16)),
        "train/bored/käse%20brot+#?.png": _encoded(".png", picture(10, 16)),
        "x/y/z/[1] {2} * \\ 'q' \"d\".png": _encoded(".png", picture(11, 16)),
        "x/日本語.webp": _encoded(".webp", picture(12, 16), cv2.IMWRITE_WEBP_QUALITY, 101),
    }
    broken = {
        "empty.png": b"",
        "x/empty too.jpg": b"",
        "text.jpg": b"this is not an image\n",
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": _encoded(".png", picture(1, 60))[:2000],
        "Thumbs.db": b"\0" * 30,
        "notes.txt": b"buy milk",
    }
    small = {
        "a point.png": picture(3, 1),
        "a line.png": picture(4, 40)[:1],
        "a bit.png": picture(4, 7),
    }
    encoded = {name: _encoded(".png", image) for name, image in small.items()}
    for name, data in {**sound, **broken, **encoded}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    decoded = {
        name: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        for name, data in sound.items()
    }
    details = {
        name: (
            "undecodable image",
            f"{len(data)} bytes, not a complete image" if data else "no bytes",
        )
        for name, data in broken.items()
    }
    for name, image in small.items():
        height, width = image.shape
        details[name] = ("image too small", f"{width}x{height} pixels; the minimum is 8x8")
    return Folder(root, decoded, details)


@pytest.fixture(scope="module")
def of_crops(crops, run, scored) -> Found:
    # The brackets of the folder are no pattern: the glob stands for them.
    return scored(run, str(crops.root).replace("[crops]", "*"))


class TestFolder:
    def test_every_file_is_one_row(self, crops, of_crops) -> None:
        assert [(row["source"], row["record"]) for row in of_crops.rows] == [
            (str(crops.root / name), 0) for name in sorted({**crops.sound, **crops.broken})
        ]
        assert {(row["variant"], row["replica"]) for row in of_crops.rows} == {("original", 0)}
        expect_books(of_crops)
        assert of_crops.about["images"] == 26
        assert of_crops.about["unscored"] == {"undecodable image": 7, "image too small": 3}

    def test_images_get_what_the_model_says_of_them(self, crops, run, of_crops) -> None:
        names = sorted(crops.sound)
        rows = {row["source"]: row for row in of_crops.rows}
        chosen = [rows[str(crops.root / name)] for name in names]

        expect_scored(chosen, run, [crops.sound[name] for name in names])
        assert [row["image_hash"] for row in chosen] == [
            image_hash(crops.sound[name]) for name in names
        ]

    def test_other_files_get_the_reason(self, crops, of_crops) -> None:
        rows = {row["source"]: row for row in of_crops.rows}

        for name, (reason, detail) in crops.broken.items():
            expect_unscored(rows[str(crops.root / name)], reason, detail)

    def test_it_is_said_what_made_the_scores(self, run, of_crops) -> None:
        about = of_crops.about
        sha256 = hashlib.sha256((run.folder / "model.keras").read_bytes()).hexdigest()

        assert about["format"] == "fer_pipeline scores"
        assert about["model"] == {"run": str(run.folder), "sha256": sha256}
        assert (about["flip_tta"], about["min_confidence"]) == (False, 0.0)
        assert {"fer_pipeline", "python", "keras", "pyspark"} <= set(about["versions"])
        assert set(on_disk(of_crops.folder)) == named(of_crops)
        assert load_config(of_crops.folder / "config.yaml") == Config()

    def test_the_summary_adds_up(self, of_crops) -> None:
        lines = format_report(ScoreManifest(**of_crops.about), "out").splitlines()

        assert [line.split() for line in lines[:3]] == [
            [name, str(of_crops.about["emotions"][name])] for name in CLASSES
        ]
        assert lines[3:] == [
            "",
            "26 images found = 16 scored + 10 not scored",
            "  not scored, undecodable image: 7",
            "  not scored, image too small: 3",
            "scores out",
        ]

    @pytest.mark.usefixtures("small_tasks")
    def test_tasks_and_batches_change_nothing(self, crops, run, of_crops, scored, spark) -> None:
        again = scored(
            run, crops.root.parent / "f*lder with *", settings=("inference.batch_size=3",)
        )

        assert len(again.about["files"]) > len(of_crops.about["files"])
        assert _rounded(again.rows) == _rounded(of_crops.rows)

    def test_only_broken_files_are_scores_too(self, run, scored, tmp_path) -> None:
        (tmp_path / "faces").mkdir()
        (tmp_path / "faces" / "empty.jpg").write_bytes(b"")
        (tmp_path / "faces" / "text.png").write_bytes(b"text")

        found = scored(run, tmp_path / "faces")

        expect_books(found)
        assert (found.about["images"], found.about["scored"]) == (2, 0)
        assert [row["detail"] for row in found.rows] == [
            "no bytes",
            "4 bytes, not a complete image",
        ]

    def test_files_and_folders_together(self, crops, run, of_crops, scored) -> None:
        inputs = crops.root / "x" / "y", crops.root / "train", crops.root / "photo.jpg"
        rows = {row["source"]: row for row in of_crops.rows}

        found = scored(run, *(str(path).replace("[crops]", "?crops?") for path in inputs))

        assert [row["source"].rpartition("/")[2] for row in found.rows] == [
            "photo.jpg",
            "käse 100%.png",
            "käse%20brot+#?.png",
            "[1] {2} * \\ 'q' \"d\".png",
        ]
        assert _rounded(found.rows) == _rounded([rows[row["source"]] for row in found.rows])

    def test_the_drawn_folder_of_the_demo(self, run, scored, tmp_path) -> None:
        synthetic.write_folder(tmp_path / "faces", per_class=2, seed=3)

        found = scored(run, tmp_path / "faces")

        expect_books(found)
        assert (found.about["images"], found.about["scored"]) == (17, 14)
        assert found.about["unscored"] == {"undecodable image": 3}


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


# --- CSV files.


ROWS = 60
BAD_ROWS = {
    4: ("0,1 2 3,Training", "wrong number of pixels", "3 pixels, expected 256"),
    9: ("nothing", "broken line", "1 fields, expected 3 fields"),
    17: ("0,,Training", "empty field", "no pixels"),
    30: (f"0,{'256 ' * 256},", "value outside 0..255", "values from 256 to 256"),
    58: (f"0,{'7 ' * 255}x,", "not a number", "a pixel is not a whole number"),
}


@pytest.fixture
def table(csv_file, picture, line) -> Callable[..., tuple[Path, dict[int, np.ndarray]]]:
    """A CSV of 16x16 images with labels and usages that mean nothing, blank lines and bad rows."""

    def write(name: str) -> tuple[Path, dict[int, np.ndarray]]:
        sound = {n: picture(100 + n, 16) for n in range(ROWS) if n not in BAD_ROWS}
        rows = []
        for n in range(ROWS):
            if n % 7 == 0:
                rows.append("")
            rows.append(line("bored", sound[n], "nobody") if n in sound else BAD_ROWS[n][0])
        return csv_file(name, rows), sound

    return write


class TestCsv:
    @pytest.mark.parametrize("blocks", ["one", "many"])
    def test_every_record_is_one_row(self, request, run, scored, table, spark, blocks) -> None:
        """In a file that one task reads and in one whose records have to be numbered."""
        if blocks == "many":
            request.getfixturevalue("small_tasks")
        file, sound = table("faces and [more].csv")
        assert (spark.read.text(str(file.parent)).rdd.getNumPartitions() > 2) == (blocks == "many")

        found = scored(run, file.parent)

        expect_books(found)
        assert [(row["source"], row["record"]) for row in found.rows] == [
            (str(file), n) for n in range(ROWS)
        ]
        scored_rows = [row for row in found.rows if row["record"] in sound]
        expect_scored(scored_rows, run, list(sound.values()))
        assert [row["image_hash"] for row in scored_rows] == [
            image_hash(image) for image in sound.values()
        ]
        for n, (_, reason, detail) in BAD_ROWS.items():
            expect_unscored(found.rows[n], reason, detail)

    def test_only_pixels_are_needed(self, run, scored, csv_file, picture) -> None:
        pictures = [picture(n, 8 if n < 30 else 48) for n in range(40)]
        small = csv_file("a.csv", [_pixels(image) for image in pictures[:30]], header="pixels")
        large = csv_file(
            "b.csv", [f'7,"{_pixels(image)}"' for image in pictures[30:]], header="id, Pixels"
        )

        found = scored(run, small, large)

        expect_books(found)
        assert [(row["source"], row["record"]) for row in found.rows] == [
            *((str(small), n) for n in range(30)),
            *((str(large), n) for n in range(10)),
        ]
        expect_scored(found.rows, run, pictures)

    def test_many_bad_rows_do_not_fail_the_job(self, run, scored, csv_file, picture) -> None:
        file = csv_file("a.csv", [_pixels(picture(1)), *["1 2"] * 9], header="pixels")

        found = scored(run, file)

        expect_books(found)
        assert found.about["unscored"] == {"wrong number of pixels": 9}

    def test_no_pixels_at_all(self, run, scored, csv_file, tmp_path) -> None:
        file = csv_file("a.csv", ["0,Training"], header="emotion,Usage")

        with pytest.raises(InputError, match=r"a\.csv: no column pixels in its first line") as why:
            scored(run, file, to=tmp_path / "out")

        assert "\n" not in str(why.value)

    def test_no_rows_at_all(self, run, scored, csv_file, tmp_path) -> None:
        file = csv_file("a.csv", [])

        with pytest.raises(InputError, match=r"a\.csv: holds no image"):
            scored(run, file, to=tmp_path / "out")

        assert not (tmp_path / "out" / "scores.json").exists()


def _pixels(image: np.ndarray) -> str:
    return " ".join(map(str, image.ravel().tolist()))


# --- Prepared datasets.


@pytest.fixture(scope="module")
def faces(tmp_path_factory, picture, line) -> tuple[Path, list[np.ndarray]]:
    """A CSV of 12x12 images, of which training has two in three."""
    pictures = [picture(300 + n, SIZE) for n in range(30)]
    usages = ("Training", "PublicTest", "Training", "PrivateTest", "Training", "Training")
    path = tmp_path_factory.mktemp("faces") / "faces.csv"
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for n, image in enumerate(pictures):
            file.write(line(n % 7, image, usages[n % 6]) + "\n")
    return path, pictures


@pytest.fixture(scope="module")
def dataset(prepare, faces):
    """The images as they are."""
    return prepare(faces[0], image={"size": SIZE})


@pytest.fixture(scope="module")
def of_dataset(scored, run, dataset) -> Found:
    return scored(run, dataset.folder)


@pytest.fixture
def copied(dataset, tmp_path) -> Callable[..., Path]:
    """Puts the dataset elsewhere."""

    def copy(name: str = "data") -> Path:
        return shutil.copytree(dataset.folder, tmp_path / name / "data")

    return copy


class TestDataset:
    def test_every_row_is_one_row(self, run, faces, of_dataset) -> None:
        expect_books(of_dataset)
        assert [(row["source"], row["record"]) for row in of_dataset.rows] == [
            (str(faces[0]), n) for n in range(30)
        ]
        assert [row["image_hash"] for row in of_dataset.rows] == list(map(image_hash, faces[1]))
        expect_scored(of_dataset.rows, run, faces[1])

    @pytest.mark.parametrize("kind", ["centered", "standard"])
    def test_float32_gets_the_same_probabilities(
        self, prepare, scored, run, faces, of_dataset, kind
    ) -> None:
        """Whatever the dataset's normalisation: the model has its own."""
        image = {"size": SIZE, "dtype": "float32", "normalization": kind}

        found = scored(run, prepare(faces[0], image=image).folder)

        expect_books(found)
        assert _rounded(found.rows) == _rounded(of_dataset.rows)

    @pytest.mark.parametrize(("size", "dtype"), [(8, "uint8"), (20, "float32")])
    def test_images_of_another_size_are_resized(
        self, prepare, scored, run, faces, size, dtype
    ) -> None:
        made = prepare(faces[0], image={"size": size, "dtype": dtype})

        found = scored(run, made.folder)

        expect_scored(found.rows, run, [resize(image, size) for image in faces[1]])

    def test_variants_and_copies_are_rows_of_their_own(self, prepare, scored, run, faces) -> None:
        made = prepare(
            faces[0],
            image={"size": SIZE},
            variants={"flip": True, "rotations": [10]},
            sampling={"oversample": {"disgust": 2}},
        )

        found = scored(run, made.folder)

        def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
            return row["source"], row["record"], row["variant"], row["replica"]

        expect_books(found)
        assert found.about["images"] == made.manifest.rows.written == len(made.rows) > 60
        rows = sorted(found.rows, key=place)
        assert list(map(place, rows)) == list(map(place, made.rows))
        stored = [np.frombuffer(row["image"], np.uint8).reshape(SIZE, SIZE) for row in made.rows]
        expect_scored(rows, run, stored)

    def test_other_files_in_it_are_not_read(self, dataset, copied, scored, run) -> None:
        folder = copied()
        stray = folder / "split=train" / "part-00000-stray.parquet"
        shutil.copy(folder / dataset.manifest.files[0].path, stray)
        (folder / "face.png").write_bytes(b"")

        assert len(scored(run, folder).rows) == 30

    @pytest.mark.parametrize("name", ["100%25 ä", "copy=3", "new [1]", "a {b,c}", "all *"])
    def test_it_may_have_any_name(self, copied, scored, run, of_dataset, name) -> None:
        found = scored(run, copied(name))

        assert _rounded(found.rows) == _rounded(of_dataset.rows)

    def test_without_a_manifest_it_is_none(self, copied, scored, run, tmp_path) -> None:
        folder = copied()
        (folder / "manifest.json").unlink()

        with pytest.raises((InputError, DatasetError)) as why:
            scored(run, folder, to=tmp_path / "out")

        assert str(why.value).startswith(f"{folder}: ")
        assert "\n" not in str(why.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("damage", ["missing", "cut short", "other rows"])
    def test_a_damaged_one_is_one_clear_error(
        self, dataset, copied, scored, run, tmp_path, damage
    ) -> None:
        folder = copied()
        file = folder / dataset.manifest.files[0].path
        match damage:
            case "missing":
                file.unlink()
            case "cut short":
                file.write_bytes(file.read_bytes()[:-100])
            case "other rows":
                pq.write_table(pq.ParquetFile(file).read().slice(1), file)

        with pytest.raises((InputError, DatasetError)) as why:
            scored(run, folder, to=tmp_path / "out")

        assert str(file) in str(why.value)
        assert "\n" not in str(why.value)
        assert not (tmp_path / "out" / "scores.json").exists()


# --- Models of enhanced images.


ENHANCEMENT = Enhancement(denoise=5, equalize=True, local_contrast=True)


@pytest.fixture(scope="module")
def enhancing_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("enhancing"), enhancement=ENHANCEMENT)


class TestEnhancement:
    def test_what_was_not_prepared_is_enhanced_as_the_model_saw_it(
        self, enhancing_run, crops, faces, scored
    ) -> None:
        of_folder = scored(enhancing_run, str(crops.root).replace("[crops]", "?crops?"))
        rows = {row["source"]: row for row in of_folder.rows}
        names = [str(crops.root / name) for name in crops.sound]
        expect_scored([rows[name] for name in names], enhancing_run, list(crops.sound.values()))
        of_csv = scored(enhancing_run, faces[0])
        expect_scored(of_csv.rows, enhancing_run, faces[1])
        # Whose images the files hold does not hang on it.
        assert [row["image_hash"] for row in of_csv.rows] == list(map(image_hash, faces[1]))

    def test_a_dataset_that_is_enhanced_already_is_left_as_it_is(
        self, enhancing_run, prepare, faces, scored
    ) -> None:
        made = prepare(faces[0], image={"size": SIZE, "enhancement": ENHANCEMENT.model_dump()})
        expect_scored(scored(enhancing_run, made.folder).rows, enhancing_run, faces[1])

    def test_a_dataset_enhanced_otherwise_is_refused(
        self, enhancing_run, run, prepare, dataset, faces, scored
    ) -> None:
        other = prepare(faces[0], image={"size": SIZE, "enhancement": {"equalize": True}})
        for model, folder, found, wanted in (
            (enhancing_run, dataset.folder, "nothing", ENHANCEMENT),
            (enhancing_run, other.folder, "equalize", ENHANCEMENT),
            (run, other.folder, "equalize", "nothing"),
        ):
            with pytest.raises(DatasetError) as raised:
                scored(model, folder)
            message = str(raised.value)
            assert message.startswith(f"{folder}: the enhancement of its images is {found}, ")
            assert f" with {wanted}; prepare the dataset with the model's" in message


# --- The output's folder.


@pytest.fixture
def two(csv_file, picture) -> tuple[Path, Path]:
    """Two inputs that share nothing."""
    return (
        csv_file("a.csv", [_pixels(picture(n)) for n in range(9)], header="pixels"),
        csv_file("b.csv", [_pixels(picture(50 + n)) for n in range(7)], header="pixels"),
    )


class TestOutput:
    def test_scores_are_replaced_only_on_request(self, run, scored, two, tmp_path) -> None:
        out = tmp_path / "out"
        old = scored(run, two[0], to=out)
        before = on_disk(out)

        with pytest.raises(StorageError, match=r"out: holds scores already; --overwrite replaces"):
            scored(run, two[1], to=out)
        with pytest.raises(InputError):
            scored(run, tmp_path / "nothing", to=out, overwrite=True)
        with pytest.raises(RunError):
            scored(tmp_path, two[1], to=out, overwrite=True)

        assert on_disk(out) == before

        new = scored(run, two[1], to=out, overwrite=True)

        assert {row["source"] for row in new.rows} == {str(two[1])}
        assert set(on_disk(out)) == named(new)
        assert not named(new) & {file["path"] for file in old.about["files"]}

    def test_what_a_torn_run_left_is_cleaned_up(self, run, scored, two, tmp_path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        uuid = "01234567-89ab-cdef-0123-456789abcdef"
        for name in (f"scores-00007-{uuid}.parquet", ".scores-a1b2c3_d.json", ".unfinished"):
            (out / name).write_bytes(b"torn")

        found = scored(run, two[0], to=out)

        assert set(on_disk(out)) == named(found)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_of_other_things_is_refused(
        self, run, scored, crops, tmp_path, overwrite
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.odt").write_bytes(b"years of work")

        with pytest.raises(StorageError, match=r"is not empty .* \(it holds thesis\.odt\)"):
            scored(run, crops.root, to=tmp_path / "out", overwrite=overwrite)

        assert on_disk(tmp_path / "out") == {"thesis.odt": b"years of work"}

    def test_other_files_survive_an_overwrite(self, run, scored, two, tmp_path) -> None:
        scored(run, two[0], to=tmp_path / "out")
        (tmp_path / "out" / "notes.txt").write_text("mine")

        new = scored(run, two[1], to=tmp_path / "out", overwrite=True)

        assert set(on_disk(tmp_path / "out")) == {*named(new), "notes.txt"}

    def test_a_path_that_cannot_be_written(self, run, scored, two) -> None:
        with pytest.raises(StorageError) as why:
            scored(run, two[0], to=two[1] / "out")

        assert str(two[1] / "out") in str(why.value)
        assert "\n" not in str(why.value)


# --- How the model is run.


@pytest.fixture(scope="module")
def exported_run(run, tmp_path_factory) -> Run:
    """The same run, with its export in float32."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(run.folder, folder)
    export(folder, None, ["litert"], Config())
    return Run(folder, run.model, run.enhancement)


class TestInference:
    def test_litert_says_the_same(self, exported_run, faces, scored) -> None:
        settings = ("inference.backend=litert", "inference.batch_size=7")

        found = scored(exported_run, faces[0], settings=settings)

        expect_books(found)
        expect_scored(found.rows, exported_run, faces[1])
        file = exported_run.folder / "export" / "model.tflite"
        assert found.about["backend"] == {
            "name": "litert",
            "format": "litert",
            "reason": "as configured",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        assert load_config(found.folder / "config.yaml") == load_config(None, settings)

    def test_without_an_export_it_is_keras(self, run, of_crops) -> None:
        assert of_crops.about["backend"] == {
            "name": "keras",
            "format": "model.keras",
            "reason": f"{run.folder}: has no export; create one with: export --model {run.folder}"
            " --dataset DIR",
            "sha256": of_crops.about["model"]["sha256"],
        }

    def test_without_an_export_litert_is_refused(self, run, faces, scored, tmp_path) -> None:
        with pytest.raises(RunError) as why:
            scored(run, faces[0], to=tmp_path / "out", settings=("inference.backend=litert",))

        assert str(why.value) == (
            f"{run.folder}: has no export; create one with: export --model {run.folder}"
            " --dataset DIR"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("backend", ["keras", "litert"])
    def test_flip_is_the_mean_with_the_mirror_image(
        self, exported_run, faces, scored, backend
    ) -> None:
        settings = ("inference.flip_tta=true", f"inference.backend={backend}")
        given = exported_run.says(faces[1])
        mirrored = exported_run.says([image[:, ::-1] for image in faces[1]])

        found = scored(exported_run, faces[0], settings=settings)

        expect_books(found)
        assert found.about["flip_tta"] is True
        means = [[row[f"p_{name}"] for name in CLASSES] for row in found.rows]
        assert np.array(means) == pytest.approx((given + mirrored) / 2, abs=TOLERANCE)
        assert np.abs(given - mirrored).max() > 0.03

    def test_an_unsure_answer_is_uncertain(self, run, crops, of_crops, scored) -> None:
        sure = sorted(row["confidence"] for row in of_crops.rows if row["reason"] is None)
        # As high as one of them is: that one still counts.
        least = sure[len(sure) // 2]

        found = scored(
            run,
            str(crops.root).replace("[crops]", "*"),
            settings=(f"inference.min_confidence={least!r}",),
        )

        expected = [dict(row) for row in of_crops.rows]
        for row in expected:
            if row["reason"] is None and row["confidence"] < least:
                row["emotion"] = "uncertain"
        assert _rounded(found.rows) == _rounded(expected)
        about = found.about
        assert about["min_confidence"] == least
        shown = Counter(row["emotion"] for row in expected if row["reason"] is None)
        assert about["emotions"] == {name: shown[name] for name in (*CLASSES, "uncertain")}
        assert about["emotions"]["uncertain"] == len(sure) // 2
        assert (about["images"], about["scored"]) == (26, 16) == (26, shown.total())
        lines = format_report(ScoreManifest(**about), "out").splitlines()
        assert lines[3].split() == ["uncertain", str(len(sure) // 2)]

    def test_an_emotion_of_that_name_is_refused(self, run, faces, scored, tmp_path) -> None:
        folder = shutil.copytree(run.folder, tmp_path / "run")
        info = folder / "model.json"
        info.write_text(info.read_text().replace('"sad"', '"uncertain"'))

        with pytest.raises(RunError) as why:
            scored(
                folder, faces[0], to=tmp_path / "out", settings=("inference.min_confidence=0.5",)
            )

        assert str(why.value) == (
            f"{folder}: one of its emotions is called uncertain, as a score under"
            " inference.min_confidence is; score without that key"
        )
        assert not (tmp_path / "out").exists()

    def test_flags_are_keys(self) -> None:
        given = argparse.Namespace(
            config=None,
            set=["seed=3", "inference.backend=keras"],
            backend="litert",
            min_confidence="0.4",
            flip_tta=True,
        )
        chosen = jobs_score._load_config(given)
        found = chosen.inference
        assert (chosen.seed, found.backend, found.min_confidence, found.flip_tta) == (
            *(3, "litert"),
            *(0.4, True),
        )
        none = argparse.Namespace(
            config=None, set=[], backend=None, min_confidence=None, flip_tta=False
        )
        assert jobs_score._load_config(none) == Config()

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"min_confidence": "2"}, "--min-confidence"),
            ({"set": ["inference.min_confidence=2"]}, "--set inference.min_confidence"),
        ],
    )
    def test_what_is_wrong_is_named_as_it_was_given(self, given, named) -> None:
        nothing = {"config": None, "set": [], "backend": None, "min_confidence": None}
        arguments = argparse.Namespace(**(nothing | given), flip_tta=False)
        with pytest.raises(ConfigError) as why:
            jobs_score._load_config(arguments)
        assert str(why.value) == f"{named}: Input should be less than 1, got 2"


# --- What a user can get wrong.


class TestErrors:
    def test_the_input_is_missing(self, run, scored, tmp_path) -> None:
        with pytest.raises(InputError) as why:
            scored(run, tmp_path / "nothing here", to=tmp_path / "out")

        assert str(why.value).endswith(f"{tmp_path}/nothing here: no such file or folder")
        assert not (tmp_path / "out").exists()

    def test_the_input_is_empty(self, run, scored, tmp_path) -> None:
        (tmp_path / "empty").mkdir()

        with pytest.raises(InputError, match=r"/empty: contains no files; give a CSV file"):
            scored(run, tmp_path / "empty", to=tmp_path / "out")

    def test_images_and_csv_are_not_told_apart(self, run, scored, two, crops, tmp_path) -> None:
        with pytest.raises(InputError, match=r"holds both CSV files \(1\) and images"):
            scored(run, two[0], str(crops.root).replace("[crops]", "*"), to=tmp_path / "out")

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            (
                "missing",
                r"/run: no such folder \(no model\.json\); create one with the train job,"
                r" or name compact or mirrored$",
            ),
            ("empty", r"/run: holds no trained model \(no model\.json\)"),
            ("unfinished", r"/run: its training has not finished \(no model\.json\)"),
            ("no model", r"/run/model\.keras: no such file$"),
            ("damaged", r"/run/model\.keras: is not the file that model\.json describes; train"),
            ("cut short", r"/run/model\.keras: is not the file that model\.json describes; train"),
            ("torn info", r"/run/model\.json: is damaged: "),
            ("newer", r"/run: has format 99, .* reads format 2; update fer_pipeline$"),
        ],
    )
    def test_the_run_is_none(self, run, scored, two, tmp_path, state, says) -> None:
        folder = tmp_path / "run"
        if state != "missing":
            shutil.copytree(run.folder, folder)
        model, info = folder / "model.keras", folder / "model.json"
        match state:
            case "empty":
                model.unlink()
                info.unlink()
            case "unfinished":
                model.rename(folder / "unfinished.keras")
                info.rename(folder / IN_PROGRESS_FILE)
            case "no model":
                model.unlink()
            case "damaged":
                model.write_bytes(model.read_bytes().replace(b"conv", b"vonc"))
            case "cut short":
                model.write_bytes(model.read_bytes()[:-1])
            case "torn info":
                info.write_bytes(info.read_bytes()[:-10])
            case "newer":
                text = info.read_text()
                info.write_text(text.replace('"format_version": 2', '"format_version": 99'))

        with pytest.raises(RunError, match=says) as why:
            scored(folder, two[0], to=tmp_path / "out")

        assert "\n" not in str(why.value)
        assert not (tmp_path / "out").exists()


# --- The workers.


@pytest.mark.usefixtures("small_tasks")
def test_a_worker_loads_a_model_once(spark, scored, crops, tmp_path) -> None:
    """However many tasks it serves; it is Python's own cache that counts."""
    another = make_run(tmp_path / "run", seed=7)

    def loads(batches):
        from fer_pipeline.learning.inference.predictor import load_predict_fn

        for _ in batches:
            # So that one worker does not take the tasks of both.
            time.sleep(1)
            found = load_predict_fn.cache_info()
            yield pa.RecordBatch.from_pylist(
                [{"pid": os.getpid(), "loads": found.misses, "uses": found.hits}]
            )

    def ask() -> dict[int, tuple[int, int]]:
        asked = spark.range(0, 2, 1, 2).mapInArrow(loads, "pid bigint, loads bigint, uses bigint")
        return {row.pid: (row.loads, row.uses) for row in asked.collect()}

    before = ask()
    found = scored(another, str(crops.root).replace("[crops]", "*"))
    after = ask()

    assert before.keys() == after.keys()
    loaded = sum(after[pid][0] - before[pid][0] for pid in after)
    used = sum(after[pid][1] - before[pid][1] for pid in after)
    assert 1 <= loaded <= len(after) == 2
    # Each image is a task of its own here; those that are broken need no model.
    assert len(found.about["files"]) == len(crops.sound) + len(crops.broken)
    assert loaded + used == len(crops.sound)


def test_scores_can_be_read_back_as_a_table(of_crops) -> None:
    """The columns are those of docs/dataset_format.md: users join on source and record."""
    table = pa.concat_tables(
        pq.read_table(of_crops.folder / file["path"]) for file in of_crops.about["files"]
    )

    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {
        "source": "string",
        "record": "int64",
        "image_hash": "string",
        "variant": "string",
        "replica": "int32",
        "emotion": "string",
        "confidence": "float",
        **{f"p_{name}": "float" for name in CLASSES},
        "reason": "string",
        "detail": "string",
    }
