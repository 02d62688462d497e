"""The output folder of `score`, and errors in its input and model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fer_pipeline.errors import InputError, RunError, StorageError
from fer_pipeline.io.output_kinds import IN_PROGRESS_FILE
from tests.helpers.fer_csv import make_image, write_csv
from tests.helpers.folders import read_files
from tests.helpers.scoring import (
    format_pixels,
    list_score_files,
)


@pytest.fixture
def csv_files(tmp_path: Path) -> tuple[Path, Path]:
    """Two CSV files without a common image."""
    return (
        write_csv(
            tmp_path / "a.csv", [format_pixels(make_image(n)) for n in range(9)], header="pixels"
        ),
        write_csv(
            tmp_path / "b.csv",
            [format_pixels(make_image(50 + n)) for n in range(7)],
            header="pixels",
        ),
    )


class TestOutput:
    def test_scores_are_replaced_only_on_request(
        self, scoring_model, score_inputs, csv_files, tmp_path
    ) -> None:
        out = tmp_path / "out"
        old_scores = score_inputs(scoring_model, csv_files[0], to=out)
        old_files = read_files(out)

        with pytest.raises(StorageError, match=r"out: holds scores already; --overwrite replaces"):
            score_inputs(scoring_model, csv_files[1], to=out)
        with pytest.raises(InputError):
            score_inputs(scoring_model, tmp_path / "nothing", to=out, overwrite=True)
        with pytest.raises(RunError):
            score_inputs(tmp_path, csv_files[1], to=out, overwrite=True)

        assert read_files(out) == old_files

        new_scores = score_inputs(scoring_model, csv_files[1], to=out, overwrite=True)

        assert {row["source"] for row in new_scores.rows} == {str(csv_files[1])}
        assert set(read_files(out)) == list_score_files(new_scores)
        assert not list_score_files(new_scores) & {
            file["path"] for file in old_scores.manifest["files"]
        }

    def test_leftovers_of_a_killed_job_are_deleted(
        self, scoring_model, score_inputs, csv_files, tmp_path
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        uuid = "01234567-89ab-cdef-0123-456789abcdef"
        for name in (f"scores-00007-{uuid}.parquet", ".scores-a1b2c3_d.json", ".unfinished"):
            (out / name).write_bytes(b"torn")

        scores = score_inputs(scoring_model, csv_files[0], to=out)

        assert set(read_files(out)) == list_score_files(scores)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_of_other_files_is_refused(
        self, scoring_model, score_inputs, crops, tmp_path, overwrite
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.odt").write_bytes(b"years of work")

        with pytest.raises(StorageError, match=r"is not empty .* \(it holds thesis\.odt\)"):
            score_inputs(scoring_model, crops.root, to=tmp_path / "out", overwrite=overwrite)

        assert read_files(tmp_path / "out") == {"thesis.odt": b"years of work"}

    def test_other_files_survive_an_overwrite(
        self, scoring_model, score_inputs, csv_files, tmp_path
    ) -> None:
        score_inputs(scoring_model, csv_files[0], to=tmp_path / "out")
        (tmp_path / "out" / "notes.txt").write_text("mine")

        new_scores = score_inputs(scoring_model, csv_files[1], to=tmp_path / "out", overwrite=True)

        assert set(read_files(tmp_path / "out")) == {*list_score_files(new_scores), "notes.txt"}

    def test_the_error_names_the_output_that_cannot_be_written(
        self, scoring_model, score_inputs, csv_files
    ) -> None:
        with pytest.raises(StorageError) as error:
            score_inputs(scoring_model, csv_files[0], to=csv_files[1] / "out")

        assert str(csv_files[1] / "out") in str(error.value)
        assert "\n" not in str(error.value)


class TestErrors:
    def test_a_missing_input_is_an_error(self, scoring_model, score_inputs, tmp_path) -> None:
        with pytest.raises(InputError) as error:
            score_inputs(scoring_model, tmp_path / "nothing here", to=tmp_path / "out")

        assert str(error.value).endswith(f"{tmp_path}/nothing here: no such file or folder")
        assert not (tmp_path / "out").exists()

    def test_an_empty_folder_is_an_error(self, scoring_model, score_inputs, tmp_path) -> None:
        (tmp_path / "empty").mkdir()

        with pytest.raises(InputError, match=r"/empty: contains no files; give a CSV file"):
            score_inputs(scoring_model, tmp_path / "empty", to=tmp_path / "out")

    def test_images_and_csv_files_cannot_be_combined(
        self, scoring_model, score_inputs, csv_files, crops, tmp_path
    ) -> None:
        with pytest.raises(InputError, match=r"holds both CSV files \(1\) and images"):
            score_inputs(
                scoring_model,
                csv_files[0],
                str(crops.root).replace("[crops]", "*"),
                to=tmp_path / "out",
            )

    @pytest.mark.parametrize(
        ("state", "message"),
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
    def test_the_error_of_an_invalid_run_names_the_file(
        self, scoring_model, score_inputs, csv_files, tmp_path, state, message
    ) -> None:
        folder = tmp_path / "run"
        if state != "missing":
            shutil.copytree(scoring_model.folder, folder)
        model, model_info = folder / "model.keras", folder / "model.json"
        match state:
            case "empty":
                model.unlink()
                model_info.unlink()
            case "unfinished":
                model.rename(folder / "unfinished.keras")
                model_info.rename(folder / IN_PROGRESS_FILE)
            case "no model":
                model.unlink()
            case "damaged":
                model.write_bytes(model.read_bytes().replace(b"conv", b"vonc"))
            case "cut short":
                model.write_bytes(model.read_bytes()[:-1])
            case "torn info":
                model_info.write_bytes(model_info.read_bytes()[:-10])
            case "newer":
                text = model_info.read_text()
                model_info.write_text(text.replace('"format_version": 2', '"format_version": 99'))

        with pytest.raises(RunError, match=message) as error:
            score_inputs(folder, csv_files[0], to=tmp_path / "out")

        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
