"""The output folder of `train`: refusals and overwriting; and its job."""

import shutil
from pathlib import Path

import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.errors import ConfigError, DatasetError, FerError, RunError, StorageError
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.pipelines.train import format_report, train
from tests.helpers.folders import RUN_FILES
from tests.helpers.images import read_image
from tests.helpers.processes import run_python, show_help
from tests.helpers.stored_datasets import make_easy_rows, write_dataset
from tests.helpers.training import (
    ROOT,
    TRAIN_ROWS,
    change_row_count,
    get_message,
    have_same_bits,
    load_weights,
    make_config,
    make_loader,
    read_top_files,
)

pytestmark = pytest.mark.usefixtures("undrawn_figures")


JOB = ROOT / "jobs" / "train.py"


def expect_refusal(
    error_class: type[FerError],
    dataset: Path,
    folder: Path,
    config: Config | None = None,
    **options: bool,
) -> str:
    """Assert that a training fails and changes no file, and return the message."""
    files = read_top_files(folder) if folder.is_dir() else None
    with pytest.raises(error_class) as error:
        train(str(dataset), str(folder), config or make_config(), **options)
    assert (read_top_files(folder) if folder.is_dir() else None) == files
    return get_message(error)


class TestRefusals:
    def test_a_finished_run_is_not_replaced_without_overwrite(self, easy_dataset, trained_run):
        folder, _ = trained_run
        assert expect_refusal(StorageError, easy_dataset, folder) == (
            f"{folder}: holds a finished training run already; --overwrite replaces it"
        )

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_of_other_files_is_refused(self, easy_dataset, tmp_path, overwrite):
        (tmp_path / "thesis.tex").write_text("three years of work")
        message = expect_refusal(StorageError, easy_dataset, tmp_path, overwrite=overwrite)
        assert message == (
            f"{tmp_path}: is not empty and not a finished training run (it holds thesis.tex);"
            " choose another folder"
        )

    def test_the_folder_of_a_dataset_is_refused(self, tmp_path):
        dataset = write_dataset(tmp_path, {"train": make_easy_rows(20, 5)})
        with pytest.raises(StorageError, match="not a finished training run"):
            train(str(dataset), str(dataset), make_config(), overwrite=True)
        assert make_loader(dataset, batch_size=5).row_count == 20

    def test_a_file_is_refused_as_output(self, easy_dataset, tmp_path):
        (tmp_path / "run").write_text("")
        message = expect_refusal(StorageError, easy_dataset, tmp_path / "run")
        assert message == f"{tmp_path / 'run'}: is a file; choose a folder"

    def test_a_missing_dataset_is_an_error(self, tmp_path):
        message = expect_refusal(DatasetError, tmp_path / "none", tmp_path / "run")
        assert message.startswith(f"{tmp_path / 'none'}: no such folder")

    def test_a_dataset_without_training_rows_is_refused(self, tmp_path):
        dataset = write_dataset(tmp_path / "data", {"test": make_easy_rows(20, 5)})
        message = expect_refusal(DatasetError, dataset, tmp_path / "run")
        assert message.startswith(f"{dataset}: the train split is empty; rows per split: train (0)")

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_an_unknown_network_is_refused(self, easy_dataset, trained_run, tmp_path, overwrite):
        folder = trained_run[0] if overwrite else tmp_path / "run"
        message = expect_refusal(
            ConfigError,
            easy_dataset,
            folder,
            make_config("model.name=system_aa"),
            overwrite=overwrite,
        )
        assert message.startswith(
            "model.name: unknown network 'system_aa', did you mean system_a? "
        )


class TestOverwrite:
    @pytest.fixture
    def run(self, trained_run, tmp_path):
        """A copy of the finished run, which a test may change."""
        return shutil.copytree(trained_run[0], tmp_path / "run")

    def test_an_overwrite_replaces_all_files(self, easy_dataset, run):
        old_files = read_top_files(run)
        config = make_config(seed=7, steps=6)
        model_info = train(str(easy_dataset), str(run), config, overwrite=True)
        new_files = read_top_files(run)
        assert set(new_files) == RUN_FILES
        assert all(new_files[name] != old_files[name] for name in RUN_FILES)
        assert TrainedModel.open(run).info == model_info
        assert model_info.seed == 7
        assert load_config(run / "config.yaml") == config

    def test_an_overwrite_that_fails_in_training_leaves_the_old_run_whole(self, easy_dataset, run):
        old_files = read_top_files(run)
        weights = load_weights(run)
        # It validates before it fails, and so it has a best model.
        diverging_config = make_config(
            "training.optimizer.learning_rate=1e30", "training.validate_every_steps=1"
        )
        with pytest.raises(RunError, match="the loss is nan"):
            train(str(easy_dataset), str(run), diverging_config, overwrite=True)
        files = read_top_files(run)
        assert {name: files[name] for name in RUN_FILES} == old_files
        unfinished_files = {".unfinished", "unfinished.csv", "unfinished.yaml", "checkpoint.npz"}
        assert set(files) - RUN_FILES <= unfinished_files
        assert have_same_bits(load_weights(run), weights)
        # A second try succeeds.
        train(str(easy_dataset), str(run), make_config(steps=6), overwrite=True)
        assert set(read_top_files(run)) == RUN_FILES

    def test_an_overwrite_that_fails_on_its_dataset_leaves_the_old_run_whole(self, run, tmp_path):
        old_files = read_top_files(run)
        rows = make_easy_rows(TRAIN_ROWS, 5)
        dataset = write_dataset(tmp_path / "data", {"train": rows}, change_file=change_row_count(1))
        with pytest.raises(DatasetError, match="delivered 115 rows, the manifest says 116"):
            train(str(dataset), str(run), make_config(), overwrite=True)
        files = read_top_files(run)
        assert {name: files[name] for name in RUN_FILES} == old_files

    @pytest.mark.parametrize("name", sorted(RUN_FILES - {"model.json", "model.keras"}))
    def test_an_overwrite_names_the_file_that_cannot_be_written(self, easy_dataset, run, name):
        (run / name).unlink()
        (run / name).mkdir()  # a file cannot take its place
        with pytest.raises(StorageError) as error:
            train(str(easy_dataset), str(run), make_config(seed=7, steps=1), overwrite=True)
        assert str(run / name) in get_message(error)
        assert "cannot be written" in get_message(error)
        # Model and description belong to the same run, or the description is missing.
        if (run / "model.json").exists():
            TrainedModel.open(run).load_network()
        else:
            with pytest.raises(RunError, match="its training has not finished"):
                TrainedModel.open(run).load_network()

    def test_a_failed_first_run_cannot_be_opened_and_is_replaced(self, easy_dataset, tmp_path):
        out = tmp_path / "run"
        with pytest.raises(RunError, match="the loss is nan"):
            train(str(easy_dataset), str(out), make_config("training.optimizer.learning_rate=1e30"))
        with pytest.raises(RunError, match="its training has not finished"):
            TrainedModel.open(out).load_network()
        # Its files are replaced without --overwrite.
        train(str(easy_dataset), str(out), make_config())
        assert set(read_top_files(out)) == RUN_FILES


class TestJob:
    def test_the_stored_configuration_reproduces_the_run_in_another_process(
        self, easy_dataset, trained_run, shared_process, tmp_path
    ):
        # The stored configuration suffices to reproduce the run bit by bit.
        folder, model_info = trained_run
        out = tmp_path / "run"
        command = ["train", "--dataset", easy_dataset, "--output", out]
        process = shared_process.run(*command, "--config", folder / "config.yaml")
        process.expect_success()
        assert process.out == format_report(trained_model.read_model_info(out), str(out)) + "\n"
        assert "Warning" not in process.err
        assert have_same_bits(load_weights(out), load_weights(folder))
        assert (out / "history.csv").read_bytes() == (folder / "history.csv").read_bytes()
        assert (
            trained_model.read_model_info(out).model_copy(update={"sha256": model_info.sha256})
            == model_info
        )

    def test_a_failed_training_prints_one_error(self, easy_dataset, shared_process, tmp_path):
        command = ["train", "--dataset", easy_dataset, "--output", tmp_path / "run"]
        command += [
            "--set",
            "training.optimizer.learning_rate=1e30",
            "--set",
            "model.options.hidden=8",
        ]
        process = shared_process.run(*command, "--set", "loader.batch_size=16")
        process.expect_error("error: the loss is nan after ")
        assert process.err.splitlines()[-1].startswith("error: the loss is nan after ")

    def test_dataset_and_output_are_required(self):
        for missing, arguments in (
            ("--output", ["--dataset", "x"]),
            ("--dataset", ["--output", "x"]),
        ):
            process = run_python(JOB, *arguments)
            assert process.returncode == 2
            assert process.stderr.splitlines()[-1] == (
                "spark-submit.sh train: error: the following arguments are required: " + missing
            )

    def test_preview_and_summarize_run_without_a_run_folder(
        self, easy_dataset, shared_process, tmp_path
    ):
        picture = tmp_path / "grid.png"
        process = shared_process.run(
            "preview",
            "--dataset",
            easy_dataset,
            "--output",
            picture,
            "--set",
            "training.augmentation.rotation=20",
        )
        assert process.status == 0, process.err
        assert str(picture) in process.out
        assert min(read_image(picture).shape[:2]) > 100
        summarize = ["summarize", "--output", tmp_path / "net.png"]
        process = shared_process.run(*summarize, "--set", "image.size=28")
        assert process.status == 0, process.err
        assert "57,527 parameters" in process.out

    def test_the_help_does_not_import_tensorflow(self):
        process = show_help(
            JOB, {"tensorflow", "keras", "matplotlib", "pyspark", "petastorm", "pyarrow"}
        )
        assert process.stdout.splitlines()[-1:] == ["[]"], process.stderr
        for option in ("--dataset DIR", "--output RUN", "--overwrite", "--config FILE.yaml"):
            assert option in process.stdout
