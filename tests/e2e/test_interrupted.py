"""Jobs that are killed at the worst moments, and jobs that a user interrupts."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers.folders import RUN_FILES, list_dataset_files, read_files

# Many small files, so that for a while only some of them exist.
PREPROCESS = shlex.split(
    "preprocess --config small.yaml --input faces.csv --set output.files_per_split=12"
)
ON_TWO_CORES = ("--master", "local[2]")
TRAIN = ("train", "--config", "small.yaml", "--dataset", "data")
INTERRUPTED = "error: interrupted"


def list_parts(folder: Path, under: str = ".") -> set[Path]:
    """Return the Parquet files in a folder, or in one of its subfolders."""
    return set((folder / under).rglob("part-*.parquet"))


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestPreprocess:
    @pytest.mark.slow
    def test_the_error_after_a_kill_of_java_is_one_line(self, jobs, dataset, tmp_path) -> None:
        out = tmp_path / "out"
        running = jobs.start(*ON_TWO_CORES, *PREPROCESS, "--output", str(out), cwd=dataset.home)
        running.wait_until(lambda: bool(list_parts(out)))
        for pid, command_line in running.list_processes().items():
            if "java" in command_line.split(" ", 1)[0]:
                os.kill(pid, signal.SIGKILL)
        running.wait().expect_error("Spark's Java process ended before the job")
        assert not (out / "manifest.json").exists()

    def test_a_killed_run_leaves_no_dataset(self, jobs, shared_process, dataset, tmp_path) -> None:
        out = tmp_path / "out"
        command = (*PREPROCESS, "--output", str(out))

        # The quarantine is written last, just before the manifest.
        running = jobs.start(*ON_TWO_CORES, *command, cwd=dataset.home)
        running.wait_until(lambda: bool(list_parts(out, "quarantine")))
        assert running.end_with_signal(signal.SIGKILL).status == -signal.SIGKILL
        incomplete = list_parts(out)
        assert incomplete
        assert not (out / "manifest.json").exists()

        shared_process.run(*command, cwd=dataset.home).expect_success()

        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["checksum"] == dataset.manifest["checksum"]
        assert set(read_files(out)) == list_dataset_files(out)
        assert not incomplete & list_parts(out)

    @pytest.mark.slow
    def test_a_killed_overwrite_leaves_one_whole_dataset(
        self, jobs, shared_process, dataset, tmp_path
    ) -> None:
        out = shutil.copytree(dataset.folder, tmp_path / "out")
        before, old = read_files(out), list_parts(out)
        command = (*PREPROCESS, "--output", str(out), "--overwrite", "--set", "seed=4")
        running = jobs.start(*ON_TWO_CORES, *command, cwd=dataset.home)

        # With its first file the job is paused: a kill at this moment leaves the same files.
        running.wait_until(lambda: bool(list_parts(out) - old))
        running.send_signal(signal.SIGSTOP)
        assert before.items() <= read_files(out).items()
        assert set(before) == list_dataset_files(out)

        # A second job cannot write to the same folder.
        second = shared_process.run(*command, cwd=dataset.home)
        running.send_signal(signal.SIGCONT)
        second.expect_error(f"{out}: another job is writing there")

        manifest = out / "manifest.json"
        running.wait_until(lambda: manifest.read_bytes() != before["manifest.json"])
        running.end_with_signal(signal.SIGKILL)

        # The new dataset is complete, although files of the old one may remain.
        files = list_dataset_files(out)
        assert files <= set(read_files(out))
        assert not files & {str(path.relative_to(out)) for path in old}
        assert json.loads(manifest.read_text())["config"]["seed"] == 4
        checksum = json.loads(manifest.read_text())["checksum"]

        shared_process.run(*command, cwd=dataset.home).expect_success()

        assert json.loads(manifest.read_text())["checksum"] == checksum
        assert set(read_files(out)) == list_dataset_files(out)

    @pytest.mark.parametrize(
        "moment", ["while Spark starts", pytest.param("while it writes", marks=pytest.mark.slow)]
    )
    def test_the_error_of_an_interrupted_job_is_one_line(
        self, jobs, dataset, tmp_path, moment
    ) -> None:
        out = tmp_path / "out"
        running = jobs.start(*ON_TWO_CORES, *PREPROCESS, "--output", str(out), cwd=dataset.home)
        if moment == "while Spark starts":
            running.wait_until(
                lambda: any("SparkSubmit" in line for line in running.list_processes().values())
            )
        else:
            running.wait_until(lambda: bool(list_parts(out)))

        stopped = running.end_with_signal(signal.SIGINT)

        stopped.expect_error(INTERRUPTED, status=130)
        assert not (out / "manifest.json").exists()


class TestTrain:
    def test_an_unfinished_run_is_not_taken_for_a_finished_one(
        self, jobs, shared_process, dataset, tmp_path
    ) -> None:
        out = tmp_path / "run"
        endless = (*TRAIN, "--output", str(out), "--set", "training.steps=1000000")
        short = (*TRAIN, "--output", str(out), "--set", "training.steps=20")

        def is_halfway() -> bool:
            history = out / "unfinished.csv"
            return history.is_file() and history.read_text().count("\n") > 3

        def read_outputs(folder: Path) -> dict[str, bytes]:
            # TensorBoard's folder belongs to the newest training, finished or not.
            files = read_files(folder).items()
            return {name: content for name, content in files if not name.startswith("tensorboard/")}

        # Killed.
        running = jobs.start(*endless, cwd=dataset.home)
        running.wait_until(is_halfway)
        assert running.end_with_signal(signal.SIGKILL).status == -signal.SIGKILL
        assert {"unfinished.csv", "checkpoint.npz"} <= set(read_files(out))
        assert not (out / "model.json").exists()

        report = tmp_path / "report"
        evaluate = ("evaluate", "--model", str(out), "--dataset", "data", "--output", str(report))
        refused = shared_process.run(*evaluate, cwd=dataset.home)
        refused.expect_error(f"error: {out}: its training has not finished (no model.json)")
        assert not report.exists()

        refused = shared_process.run(*short, cwd=dataset.home)
        refused.expect_error(
            f"error: {out}: holds an unfinished run; --resume continues it, --overwrite starts anew"
        )

        shared_process.run(*short, "--overwrite", cwd=dataset.home).expect_success()
        before = read_outputs(out)
        assert set(before) == RUN_FILES

        # Paused halfway, an overwrite has not changed the finished run: a kill leaves these files.
        running = jobs.start(*endless, "--overwrite", cwd=dataset.home)
        running.wait_until(is_halfway)
        running.send_signal(signal.SIGSTOP)
        assert before.items() <= read_outputs(out).items()
        assert json.loads(before["model.json"])["sha256"] == compute_sha256(out / "model.keras")

        # Interrupted by the user.
        running.send_signal(signal.SIGCONT)
        running.end_with_signal(signal.SIGINT).expect_error(
            f"{INTERRUPTED}; --resume continues the run", status=130
        )
        assert before.items() <= read_outputs(out).items()
        assert (out / "checkpoint.npz").exists()
