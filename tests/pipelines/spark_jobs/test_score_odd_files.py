"""Scores of archives, and of files that are damaged or change while they are read."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable

import pytest

from fer_pipeline.errors import InputError
from fer_pipeline.spark import listed_files
from tests.helpers.fer_csv import make_image, write_csv
from tests.helpers.scoring import (
    expect_consistent_counts,
    expect_scored,
    format_pixels,
    round_rows,
)


def test_a_zip_gives_the_scores_of_its_folder(
    crops, crop_scores, scoring_model, score_inputs, tmp_path
) -> None:
    path = tmp_path / "crops.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in crops.root.rglob("*"):
            archive.write(file, file.relative_to(crops.root))

    scores = score_inputs(scoring_model, path)

    expect_consistent_counts(scores)
    expected = [
        {**row, "source": row["source"].replace(str(crops.root), str(path))}
        for row in round_rows(crop_scores.rows)
    ]
    assert round_rows(scores.rows) == expected
    [row] = round_rows(score_inputs(scoring_model, f"zip://grey.*::{path}").rows)
    assert row == next(row for row in expected if row["source"] == f"{path}/grey.png")


def test_of_a_truncated_csv_file_the_rest_is_one_row(
    scoring_model, score_inputs, tmp_path, caplog
) -> None:
    images = [make_image(seed) for seed in range(40)]
    plain = write_csv(
        tmp_path / "a.csv", [format_pixels(image) for image in images], header="pixels"
    )
    content = gzip.compress(plain.read_bytes())
    path = tmp_path / "b.csv.gz"
    path.write_bytes(content[: len(content) // 2])

    scores = score_inputs(scoring_model, path)

    expect_consistent_counts(scores)
    *scored, missing = scores.rows
    assert 10 < len(scored) < 30
    expect_scored(scored, scoring_model, images[: len(scored)])
    assert (missing["record"], missing["reason"]) == (len(scored), "unreadable file")
    assert missing["detail"].endswith("; the rest is not read")
    assert f"{path}: {missing['detail']}" in caplog.messages


def test_an_unreadable_csv_file_does_not_end_the_job(
    scoring_model, score_inputs, tmp_path, monkeypatch, small_blocks
) -> None:
    """One was deleted after its records were counted, the other before its header was read."""
    rows = [format_pixels(make_image(seed % 40)) for seed in range(1000)]
    files = [write_csv(tmp_path / f"{name}.csv", rows, header="pixels") for name in "abc"]
    read_layouts = listed_files.ListedFiles._read_layouts

    def delete_and_read_layouts(*arguments):
        files[1].unlink()
        layouts = read_layouts(*arguments)
        files[2].unlink()
        return layouts

    monkeypatch.setattr(listed_files.ListedFiles, "_read_layouts", delete_and_read_layouts)
    scores = score_inputs(scoring_model, tmp_path)

    expect_consistent_counts(scores)
    assert scores.manifest["scored"] == 1000
    unscored = {row["source"] for row in scores.rows if row["reason"] == "unreadable file"}
    assert unscored == {str(files[1]), str(files[2])}


def call_between_counting_and_reading(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]
) -> None:
    """Change a file after its records were counted, and before its header is read."""
    read_layouts = listed_files.ListedFiles._read_layouts

    def change_and_read_layouts(*arguments):
        change()
        return read_layouts(*arguments)

    monkeypatch.setattr(listed_files.ListedFiles, "_read_layouts", change_and_read_layouts)


def test_rows_that_are_appended_while_the_job_runs_are_not_read(
    scoring_model, score_inputs, tmp_path, monkeypatch, small_blocks
) -> None:
    rows = [format_pixels(make_image(seed % 40)) for seed in range(1000)]
    path = write_csv(tmp_path / "a.csv", rows, header="pixels")

    def append_rows() -> None:
        with path.open("a") as file:
            file.writelines(f"{row}\n" for row in rows[:10])

    call_between_counting_and_reading(monkeypatch, append_rows)
    assert score_inputs(scoring_model, path).manifest["scored"] == 1000


def test_the_error_for_a_file_that_shrinks_while_the_job_runs_names_it(
    scoring_model, score_inputs, tmp_path, monkeypatch, small_blocks
) -> None:
    rows = [format_pixels(make_image(seed % 40)) for seed in range(1000)]
    path = write_csv(tmp_path / "a.csv", rows, header="pixels")

    def remove_rows() -> None:
        write_csv(path, rows[:900], header="pixels")

    call_between_counting_and_reading(monkeypatch, remove_rows)
    with pytest.raises(InputError, match=r"a\.csv: 1000 images were counted, and 900 read later"):
        score_inputs(scoring_model, path)
