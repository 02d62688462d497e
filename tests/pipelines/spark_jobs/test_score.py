"""Scores of image folders and CSV files, with a real model in real workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data import synthetic
from fer_pipeline.data.scores import ScoreManifest
from fer_pipeline.data.split_keys import hash_image
from fer_pipeline.errors import InputError
from fer_pipeline.pipelines.score import format_report
from tests.helpers.fer_csv import Image, format_row, make_image, write_csv
from tests.helpers.folders import read_files
from tests.helpers.image_files import draw, save, save_pages
from tests.helpers.scoring import (
    CLASSES,
    expect_consistent_counts,
    expect_scored,
    expect_unscored,
    format_pixels,
    list_score_files,
    make_model,
    round_rows,
)


@pytest.fixture
def small_tasks(spark) -> Iterator[None]:
    """Tasks of 20 kB, so that many tasks share the files of a folder or the blocks of a CSV."""
    keys = ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    settings = {key: spark.conf.get(key) for key in keys}
    for key in keys:
        spark.conf.set(key, "20000")
    yield
    for key, setting in settings.items():
        spark.conf.set(key, setting)


ROWS = 60
BAD_ROWS = {
    4: ("0,1 2 3,Training", "wrong number of pixels", "3 pixels, expected 256"),
    9: ("nothing", "broken line", "1 fields, expected 3 fields"),
    17: ("0,,Training", "empty field", "no pixels"),
    30: (f"0,{'256 ' * 256},", "value outside 0..255", "values from 256 to 256"),
    58: (f"0,{'7 ' * 255}x,", "not a number", "a pixel is not a whole number"),
}


@pytest.fixture
def mixed_csv(tmp_path: Path) -> Callable[[str], tuple[Path, dict[int, Image]]]:
    """A function that writes a CSV with unused labels, blank lines and bad rows."""

    def write(name: str) -> tuple[Path, dict[int, Image]]:
        valid = {n: make_image(100 + n, 16) for n in range(ROWS) if n not in BAD_ROWS}
        rows = []
        for n in range(ROWS):
            if n % 7 == 0:
                rows.append("")
            rows.append(format_row("bored", valid[n], "nobody") if n in valid else BAD_ROWS[n][0])
        return write_csv(tmp_path / name, rows), valid

    return write


class TestFolder:
    def test_an_image_with_a_note_has_a_score(self, scoring_model, score_inputs, tmp_path) -> None:
        files = {
            "animation.gif": save_pages(draw().grey.quantize(200), "GIF"),
            "flat.png": save(draw().grey.point(lambda _: 77), "PNG"),
            "plain.png": save(draw().grey, "PNG"),
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        scores = score_inputs(scoring_model, tmp_path)
        assert [(row["reason"], row["detail"]) for row in scores.rows] == [
            (None, "first image of several in its file"),
            (None, "all pixels equal"),
            (None, None),
        ]
        assert None not in [row["emotion"] for row in scores.rows]
        assert scores.manifest["notes"] == {
            "first image of several in its file": 1,
            "all pixels equal": 1,
        }

    def test_each_file_is_one_row(self, crops, crop_scores) -> None:
        assert [(row["source"], row["record"]) for row in crop_scores.rows] == [
            (str(crops.root / name), 0) for name in sorted({**crops.valid, **crops.broken})
        ]
        assert {(row["variant"], row["replica"]) for row in crop_scores.rows} == {("original", 0)}
        expect_consistent_counts(crop_scores)
        assert crop_scores.manifest["images"] == 26
        assert crop_scores.manifest["unscored"] == {"undecodable image": 7, "image too small": 3}

    def test_valid_images_get_the_predictions_of_the_model(
        self, crops, scoring_model, crop_scores
    ) -> None:
        names = sorted(crops.valid)
        rows = {row["source"]: row for row in crop_scores.rows}
        valid_rows = [rows[str(crops.root / name)] for name in names]

        expect_scored(valid_rows, scoring_model, [crops.valid[name] for name in names])
        assert [row["image_hash"] for row in valid_rows] == [
            hash_image(crops.valid[name]).hex() for name in names
        ]

    def test_other_files_get_a_reason_and_no_score(self, crops, crop_scores) -> None:
        rows = {row["source"]: row for row in crop_scores.rows}

        for name, (reason, detail) in crops.broken.items():
            expect_unscored(rows[str(crops.root / name)], reason, detail)

    def test_the_manifest_names_the_model_settings_and_versions(
        self, scoring_model, crop_scores
    ) -> None:
        manifest = crop_scores.manifest
        sha256 = hashlib.sha256((scoring_model.folder / "model.keras").read_bytes()).hexdigest()

        assert manifest["format"] == "fer_pipeline scores"
        assert manifest["model"] == {"run": str(scoring_model.folder), "sha256": sha256}
        assert (manifest["flip_tta"], manifest["min_confidence"]) == (False, 0.0)
        assert {"fer_pipeline", "python", "keras", "pyspark"} <= set(manifest["versions"])
        assert set(read_files(crop_scores.folder)) == list_score_files(crop_scores)
        assert load_config(crop_scores.folder / "config.yaml") == Config()

    def test_the_report_counts_the_emotions_and_the_missing_scores(self, crop_scores) -> None:
        lines = format_report(ScoreManifest(**crop_scores.manifest), "out").splitlines()

        assert [line.split() for line in lines[:3]] == [
            [name, str(crop_scores.manifest["emotions"][name])] for name in CLASSES
        ]
        assert lines[3:] == [
            "",
            "26 images found = 16 scored + 10 not scored",
            "  not scored, undecodable image: 7",
            "  not scored, image too small: 3",
            "scores out",
        ]

    @pytest.mark.usefixtures("small_tasks")
    def test_the_sizes_of_tasks_and_batches_do_not_change_the_scores(
        self, crops, scoring_model, crop_scores, score_inputs, spark
    ) -> None:
        repeated_scores = score_inputs(
            scoring_model, crops.root.parent / "f*lder with *", settings=("inference.batch_size=3",)
        )

        assert len(repeated_scores.manifest["files"]) > len(crop_scores.manifest["files"])
        assert round_rows(repeated_scores.rows) == round_rows(crop_scores.rows)

    @pytest.mark.parametrize(
        ("settings", "valid_count", "reason"),
        [
            ((), 0, "only 0 of 2 images could be scored (undecodable image: 2)"),
            (
                ("inference.min_scored_fraction=0.6",),
                1,
                "only 1 of 3 images could be scored, less than inference.min_scored_fraction 0.6"
                " (undecodable image: 2)",
            ),
        ],
    )
    def test_too_few_scored_images_are_an_error(
        self, scoring_model, score_inputs, crops, tmp_path, settings, valid_count, reason
    ) -> None:
        faces = tmp_path / "faces"
        faces.mkdir()
        (faces / "empty.jpg").write_bytes(b"")
        (faces / "text.png").write_bytes(b"text")
        for number in range(valid_count):
            shutil.copy(crops.root / "photo.jpg", faces / f"{number}.jpg")

        with pytest.raises(InputError) as error:
            score_inputs(scoring_model, faces, to=tmp_path / "scores", settings=settings)

        assert str(error.value) == f"{faces}: {reason}; nothing was written"
        assert not (tmp_path / "scores").exists()

    def test_files_and_folders_can_be_combined(
        self, crops, scoring_model, crop_scores, score_inputs
    ) -> None:
        inputs = crops.root / "x" / "y", crops.root / "train", crops.root / "photo.jpg"
        rows = {row["source"]: row for row in crop_scores.rows}

        scores = score_inputs(
            scoring_model, *(str(path).replace("[crops]", "?crops?") for path in inputs)
        )

        assert [row["source"].rpartition("/")[2] for row in scores.rows] == [
            "photo.jpg",
            "käse 100%.png",
            "käse%20brot+#?.png",
            "[1] {2} * \\ 'q' \"d\".png",
        ]
        assert round_rows(scores.rows) == round_rows([rows[row["source"]] for row in scores.rows])

    def test_the_synthetic_folder_of_the_demo_is_scored(
        self, scoring_model, score_inputs, tmp_path
    ) -> None:
        synthetic.write_folder(tmp_path / "faces", per_class=2, seed=3)

        scores = score_inputs(scoring_model, tmp_path / "faces")

        expect_consistent_counts(scores)
        assert (scores.manifest["images"], scores.manifest["scored"]) == (17, 14)
        assert scores.manifest["unscored"] == {"undecodable image": 3}


class TestCsv:
    @pytest.mark.parametrize("blocks", ["one", "many"])
    def test_each_record_is_one_row(
        self, request, scoring_model, score_inputs, mixed_csv, spark, blocks
    ) -> None:
        """Check a file that one task reads, and one whose records must be numbered."""
        if blocks == "many":
            request.getfixturevalue("small_tasks")
        file, valid = mixed_csv("faces and [more].csv")
        assert (spark.read.text(str(file.parent)).rdd.getNumPartitions() > 2) == (blocks == "many")

        scores = score_inputs(scoring_model, file.parent)

        expect_consistent_counts(scores)
        assert [(row["source"], row["record"]) for row in scores.rows] == [
            (str(file), n) for n in range(ROWS)
        ]
        scored_rows = [row for row in scores.rows if row["record"] in valid]
        expect_scored(scored_rows, scoring_model, list(valid.values()))
        assert [row["image_hash"] for row in scored_rows] == [
            hash_image(image).hex() for image in valid.values()
        ]
        for n, (_, reason, detail) in BAD_ROWS.items():
            expect_unscored(scores.rows[n], reason, detail)

    def test_a_csv_needs_only_the_column_of_pixels(
        self, scoring_model, score_inputs, tmp_path
    ) -> None:
        images = [make_image(n, 8 if n < 30 else 48) for n in range(40)]
        small = write_csv(
            tmp_path / "a.csv", [format_pixels(image) for image in images[:30]], header="pixels"
        )
        large = write_csv(
            tmp_path / "b.csv",
            [f'7,"{format_pixels(image)}"' for image in images[30:]],
            header="id, Pixels",
        )

        scores = score_inputs(scoring_model, small, large)

        expect_consistent_counts(scores)
        assert [(row["source"], row["record"]) for row in scores.rows] == [
            *((str(small), n) for n in range(30)),
            *((str(large), n) for n in range(10)),
        ]
        expect_scored(scores.rows, scoring_model, images)

    def test_many_bad_rows_do_not_fail_the_job(self, scoring_model, score_inputs, tmp_path) -> None:
        file = write_csv(
            tmp_path / "a.csv", [format_pixels(make_image(1)), *["1 2"] * 9], header="pixels"
        )

        scores = score_inputs(scoring_model, file)

        expect_consistent_counts(scores)
        assert scores.manifest["unscored"] == {"wrong number of pixels": 9}

    def test_a_csv_without_a_column_of_pixels_is_an_error(
        self, scoring_model, score_inputs, tmp_path
    ) -> None:
        file = write_csv(tmp_path / "a.csv", ["0,Training"], header="emotion,Usage")

        with pytest.raises(
            InputError, match=r"a\.csv: no column pixels in its first line"
        ) as error:
            score_inputs(scoring_model, file, to=tmp_path / "out")

        assert "\n" not in str(error.value)

    def test_a_csv_without_rows_is_an_error(self, scoring_model, score_inputs, tmp_path) -> None:
        file = write_csv(tmp_path / "a.csv", [])

        with pytest.raises(InputError, match=r"a\.csv: holds no image"):
            score_inputs(scoring_model, file, to=tmp_path / "out")

        assert not (tmp_path / "out" / "scores.json").exists()


@pytest.mark.usefixtures("small_tasks")
def test_a_worker_loads_a_model_once(spark, score_inputs, crops, tmp_path) -> None:
    """Check the number of loads in the cache statistics of the Python workers."""
    unloaded_model = make_model(tmp_path / "run", seed=7)

    def count_loads(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from fer_pipeline.learning.inference.predictor import load_predict_fn

        for _ in batches:
            # Otherwise one worker may take the tasks of both.
            time.sleep(1)
            cache = load_predict_fn.cache_info()
            yield pa.RecordBatch.from_pylist(
                [{"pid": os.getpid(), "loads": cache.misses, "uses": cache.hits}]
            )

    def read_counts() -> dict[int, tuple[int, int]]:
        counts = spark.range(0, 2, 1, 2).mapInArrow(
            count_loads, "pid bigint, loads bigint, uses bigint"
        )
        return {row.pid: (row.loads, row.uses) for row in counts.collect()}

    counts_before = read_counts()
    scores = score_inputs(unloaded_model, str(crops.root).replace("[crops]", "*"))
    counts_after = read_counts()

    assert counts_before.keys() == counts_after.keys()
    loaded = sum(counts_after[pid][0] - counts_before[pid][0] for pid in counts_after)
    used = sum(counts_after[pid][1] - counts_before[pid][1] for pid in counts_after)
    assert 1 <= loaded <= len(counts_after) == 2
    # Each image is a task here, and broken images need no model.
    assert len(scores.manifest["files"]) == len(crops.valid) + len(crops.broken)
    assert loaded + used == len(crops.valid)


def test_the_scores_have_the_documented_columns(crop_scores) -> None:
    """See docs/dataset_format.md; users join on source and record."""
    table = pa.concat_tables(
        pq.read_table(crop_scores.folder / file["path"]) for file in crop_scores.manifest["files"]
    )

    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        "source": "string",
        "record": "int64",
        "image_hash": "string",
        "variant": "string",
        "replica": "int32",
        "frame": "int32",
        "time": "double",
        "track": "int32",
        "face": "int32",
        **dict.fromkeys(("left", "top", "width", "height"), "float"),
        **dict.fromkeys(("left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y"), "float"),
        **dict.fromkeys(("detector_confidence", "quality", "sharpness", "roll", "turn"), "float"),
        "face_image": "binary",
        "emotion": "string",
        "confidence": "float",
        **{f"p_{name}": "float" for name in CLASSES},
        "reason": "string",
        "detail": "string",
    }
