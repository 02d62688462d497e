"""Jobs on a standalone cluster, of which processes are killed."""

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
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training import checkpoint
from tests.helpers.standalone_cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
# Row groups that are small, so that each worker has some; epochs of more than an instant.
PREPROCESS = ("--set", "output.row_group_rows=64", "--set", "output.files_per_split=4")
TRAIN = (
    *("--config", "small.yaml", "--dataset", "split", "--set", "training.steps=null"),
    *("--set", f"training.epochs={EPOCHS}", "--set", "training.validate_every_steps=null"),
    *("--set", "loader.batch_size=32"),
)


@pytest.fixture(scope="module")
def place(home, tmp_path_factory):
    """A user's folder of its own, with the faces and the configuration of the others."""
    folder = tmp_path_factory.mktemp("a cluster's folder")
    for name in ("faces.csv", "small.yaml"):
        shutil.copy(home / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def split(jobs, place, cluster):
    """A dataset that the cluster made of the drawn faces."""
    options = ("--config", "small.yaml", "--input", "faces.csv", "--output", "split", *PREPROCESS)
    done = jobs.run(*cluster.options, "preprocess", *options, cwd=place)
    done.expect_success()
    return place / "split"


@pytest.fixture
def moments(request):
    """When a job is killed, as parts of the time that it takes."""
    count = request.config.getoption("--kills")
    # Each in its part of the time, so that none of the parts is left out.
    return [random.uniform(index, index + 1) / count for index in range(count)]


@pytest.fixture(scope="module")
def together(jobs, place, cluster, split):
    """A run of two workers that nothing disturbed."""
    train = ("train", "--workers", "2", *TRAIN, "--output", "together")
    jobs.run(*cluster.options, *train, cwd=place).expect_success()
    return place / "together"


def manifest(dataset):
    return json.loads((dataset / "manifest.json").read_text())


def checksum(dataset):
    return manifest(dataset)["checksum"]


def rounds(run, name="history.csv"):
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


def figures(run):
    """What two runs of the same have in common, to the last digits."""
    keys = ("step", "epoch", "rows", "minibatch_accuracy", "validation_accuracy")
    return [{key: row[key] for key in keys} for row in rounds(run)]


# Two of these classes run at once, in this order: what takes longest begins first.


class TestTrain:
    def test_every_epoch_has_all_rows(self, together, split):
        rows = sum(manifest(split)["counts"]["train"].values())
        found = rounds(together)
        assert [row["rows"] for row in found] == ["", *[str(rows)] * EPOCHS]
        assert [row["epoch"] for row in found] == [str(epoch) for epoch in range(EPOCHS + 1)]

    @pytest.mark.cluster
    def test_learns_what_one_worker_learns(self, jobs, place, cluster, together, split):
        """The same validation accuracy, within the spread of seeds."""
        # The first with the seed of the two.
        for number, workers in enumerate(((), (), ("--workers", "1"))):
            options = (*TRAIN, "--set", f"seed={number + 3}", "--output", f"alone {number}")
            jobs.run(*cluster.options, "train", *workers, *options, cwd=place).expect_success()
        alone = [float(rounds(place / f"alone {n}")[-1]["validation_accuracy"]) for n in range(3)]
        found = float(rounds(together)[-1]["validation_accuracy"])
        # What chance alone makes of so few images: two standard errors of a binomial.
        images = sum(manifest(split)["counts"]["validation"].values())
        chance = 2 * (found * (1 - found) / images) ** 0.5
        assert min(alone) - chance <= found <= max(alone) + chance
        # They begin with the same network, whatever their number.
        first = {rounds(place / name)[0]["validation_loss"][:6] for name in ("together", "alone 0")}
        assert len(first) == 1

    @pytest.mark.killed("a training worker in the middle of an epoch")
    @pytest.mark.parametrize(
        "victim", ["python worker", pytest.param("executor", marks=pytest.mark.cluster)]
    )
    def test_a_worker_that_is_killed_in_an_epoch(self, jobs, place, cluster, together, victim):
        out = place / f"run of a killed {victim}"
        train = ("train", "--workers", "2", *TRAIN, "--output", str(out))
        every = ("--set", "training.checkpoint_every_steps=7")
        began = time.monotonic()
        running = jobs.start(*cluster.options, *train, *every, cwd=place)
        last = out / RunFile.CHECKPOINT

        def within_the_second_epoch() -> bool:
            steps = -(-int(rounds(together)[1]["rows"]) // 32)
            step = checkpoint.read_checkpoint(last).state.step if last.is_file() else 0
            return steps < step < 2 * steps

        running.until(within_the_second_epoch)
        found = cluster.executors() if victim == "executor" else cluster.python_workers()
        os.kill(found[-1], signal.SIGKILL)
        killed, told = time.monotonic(), [2]
        while not running.has_ended and (out / "unfinished.csv").is_file():
            told.append(len(rounds(out, "unfinished.csv")))
            time.sleep(0.02)
        done = running.wait()
        assert done.status == 0, done.err
        # A minute, or on a slow machine twice what it took to get there.
        assert time.monotonic() - killed < max(60, 2 * (killed - began))
        # It has not begun again from nothing.
        assert told == sorted(told)
        assert figures(out) == figures(together)

    @pytest.mark.cluster
    @pytest.mark.killed("the training job as a whole")
    def test_a_job_that_is_killed_goes_on_with_another_number_of_workers(
        self, jobs, place, cluster, together
    ):
        out = place / "run of a killed job"
        train = ("train", "--workers", "2", *TRAIN, "--output", str(out))
        running = jobs.start(*cluster.options, *train, cwd=place)
        begun = out / "unfinished.csv"
        running.until(lambda: begun.is_file() and len(rounds(out, begun.name)) > 2)
        running.send(signal.SIGKILL)
        assert not (out / "model.json").exists()
        before = rounds(out, begun.name)
        resume = ("train", "--dataset", "split", "--output", str(out), "--resume")
        done = jobs.run(*resume, cwd=place)
        done.expect_success()
        assert "resuming after step" in done.err
        found = rounds(out)
        assert found[: len(before)] == before
        assert [row["epoch"] for row in found] == [row["epoch"] for row in rounds(together)]
        assert {row["rows"] for row in found[1:]} == {rounds(together)[1]["rows"]}

    @pytest.mark.cluster
    def test_more_workers_than_slots(self, jobs, place, cluster, split):
        train = ("train", "--workers", "3", *TRAIN, "--output", "too many")
        # It waits a minute for slots unless it is told otherwise.
        few = ("--conf", "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures=3")
        done = jobs.run(*cluster.options, *few, *train, cwd=place)
        done.expect_error("3 workers have to run at the same time, and the cluster has fewer slots")
        assert not (place / "too many" / "model.json").exists()


@pytest.mark.cluster
@pytest.mark.timeout(1500)
class TestArchive:
    def test_executors_that_have_none_of_our_packages(self, jobs, place, cluster, split, tmp_path):
        # Uncompressed: it travels no further than this machine.
        dist = [str(ROOT / "scripts" / "dist"), str(tmp_path), "0"]
        jobs.start_command(dist, place).wait(limit=600).expect_success()
        (archive,) = tmp_path.glob("*.tar.gz")
        python = "./environment/bin/python"
        given = (
            "--archives",
            f"{archive}#environment",
            "--conf",
            f"spark.pyspark.python={python}",
        )

        def run(executors: int, *job: str, output: str) -> Path:
            few = ("--total-executor-cores", str(executors))
            command = (*cluster.options, *given, *few, *job, "--output", output)
            # Two gigabytes are unpacked beside each executor first.
            jobs.start(*command, cwd=place).wait(limit=300).expect_success()
            for unpacked in cluster.folder.glob("worker-*/app-*/*/environment"):
                shutil.rmtree(unpacked, ignore_errors=True)
            return place / output

        prepare = ("preprocess", "--config", "small.yaml", "--input", "faces.csv", *PREPROCESS)
        assert checksum(run(1, *prepare, output="archived data")) == checksum(split)
        train = ("train", "--workers", "2", *TRAIN, "--set", "training.epochs=1")
        trained = run(2, *train, output="archived run")
        assert [row["epoch"] for row in rounds(trained)] == ["0", "1"]
        score = ("score", "--model", "archived run", "--input", "split")
        scored = run(1, *score, output="archived scores")
        found = json.loads((scored / "scores.json").read_text())["scored"]
        assert found == manifest(split)["rows"]["written"]
        archive.unlink()


class TestPreprocess:
    def test_makes_what_one_machine_makes(self, split, dataset):
        assert checksum(split) == dataset.manifest["checksum"]

    @pytest.mark.cluster
    @pytest.mark.killed("an executor during preprocess")
    def test_an_executor_that_is_killed(self, jobs, place, cluster, split):
        out = place / "killed executor"
        options = ("--config", "small.yaml", "--input", "faces.csv", "--output", str(out))
        running = jobs.start(*cluster.options, "preprocess", *options, *PREPROCESS, cwd=place)
        running.until(lambda: bool(cluster.python_workers()))
        os.kill(cluster.executors()[0], signal.SIGKILL)
        done = running.wait()
        assert done.status == 0, done.err
        assert checksum(out) == checksum(split)

    @pytest.mark.cluster
    @pytest.mark.killed("the driver during preprocess, at random moments")
    def test_a_driver_that_is_killed(self, jobs, place, cluster, split, on_disk, named, moments):
        out = place / "killed driver"
        options = ("--config", "small.yaml", "--input", "faces.csv", "--output", str(out))
        command = (*cluster.options, "preprocess", *options, *PREPROCESS)
        began = time.monotonic()
        # An older dataset, of other rows, which has to stay whole until the newer one is.
        jobs.run(*command, "--set", "variants.flip=false", cwd=place).expect_success()
        older, takes = checksum(out), time.monotonic() - began
        assert older != checksum(split)
        found = []
        for moment in moments:
            running = jobs.start(*command, "--overwrite", cwd=place)
            time.sleep(moment * takes)
            running.send(signal.SIGKILL)
            assert named(out) <= set(on_disk(out))
            found.append(checksum(out))
        # Once it has been replaced it is not seen again.
        assert found in [
            [older] * kept + [checksum(split)] * (len(found) - kept)
            for kept in range(len(found) + 1)
        ], moments
        jobs.run(*command, "--overwrite", cwd=place).expect_success()
        assert set(on_disk(out)) == named(out)
        assert checksum(out) == checksum(split)

    @pytest.mark.killed("the disk fills up")
    def test_a_disk_that_is_full(self, jobs, place, split, on_disk, tmp_path):
        """A small disk of its own, seen by nobody else, on which an older dataset stands."""
        alone = ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
            pytest.skip("this machine lets nobody mount a disk of their own")
        room = sum(map(len, on_disk(split).values())) * 3 // 2
        disk = tmp_path / "disk"
        disk.mkdir()
        job = [str(ROOT / "spark-submit.sh"), "--master", "local[2]", "preprocess"]
        job += ["--config", "small.yaml", "--input", "faces.csv", "--output", str(disk / "data")]
        job += ["--overwrite", "--set", "seed=8", *PREPROCESS]
        script = str(Path(__file__).with_name("full_disk.sh"))
        command = [*alone, "bash", script, str(room), str(disk), str(split), *job]
        done = jobs.start_command(command, place).wait()
        assert done.status == 1, done.err
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.err
        assert "No space left on device" in errors[0] or "the disk is full" in errors[0]
        assert done.out == "whole\n"


def of(folder):
    """The files of scores."""
    made = json.loads((folder / "scores.json").read_text())
    return [folder / file["path"] for file in made["files"]]


def scores(folder):
    """What each image was found to show, whatever file it stands in."""
    return sorted(
        pa.concat_tables(map(pq.read_table, of(folder))).to_pylist(),
        key=lambda row: (row["source"], row["record"]),
    )


@pytest.mark.cluster
class TestScore:
    """With the model of the package."""

    SCORE = ("score", "--input", "faces.csv", "--set", "inference.batch_size=16")

    @pytest.fixture(scope="class")
    def undisturbed(self, jobs, place, cluster):
        score = (*self.SCORE, "--output", "scores")
        jobs.run(*cluster.options, *score, cwd=place).expect_success()
        return place / "scores"

    @pytest.mark.killed("an executor during score")
    def test_an_executor_that_is_killed(self, jobs, place, cluster, undisturbed):
        out = place / "scores of a killed executor"
        score = (*self.SCORE, "--output", str(out))
        running = jobs.start(*cluster.options, *score, cwd=place)
        running.until(lambda: bool(cluster.python_workers()))
        os.kill(cluster.executors()[0], signal.SIGKILL)
        done = running.wait()
        assert done.status == 0, done.err
        assert scores(out) == scores(undisturbed)

    @pytest.mark.killed("the driver during score, at random moments")
    def test_a_driver_that_is_killed(self, jobs, place, cluster, undisturbed, moments):
        out = place / "scores of a killed driver"
        command = (*cluster.options, *self.SCORE, "--output", str(out))
        began = time.monotonic()
        # Older scores, which have to stay whole until the newer ones are.
        jobs.run(*command, "--set", "inference.min_confidence=0.9", cwd=place).expect_success()
        older, takes = scores(out), time.monotonic() - began
        newer = scores(undisturbed)
        assert older != newer
        for moment in moments:
            running = jobs.start(*command, "--overwrite", cwd=place)
            time.sleep(moment * takes)
            running.send(signal.SIGKILL)
            assert scores(out) in (older, newer), moment
        jobs.run(*command, "--overwrite", cwd=place).expect_success()
        assert scores(out) == newer
        assert {file.name for file in out.glob("*.parquet")} == {file.name for file in of(out)}

    def test_evaluate_what_a_cluster_has_trained(self, jobs, place, together, split):
        options = ("--model", "together", "--dataset", "split", "--split", "validation")
        jobs.run("evaluate", *options, "--output", "report", cwd=place).expect_success()
        report = json.loads((place / "report" / "metrics.json").read_text())
        assert (
            report["model"]["sha256"] == json.loads((together / "model.json").read_text())["sha256"]
        )


class TestBarrier:
    def seen(self, jobs, cluster, folder, *options):
        """What the processes of a barrier stage see."""
        script = str(Path(__file__).with_name("members.py"))
        given = shlex.join([*cluster.options, *options, "pyspark-shell"])
        command = [sys.executable, script, str(folder)]
        jobs.start_command(command, folder, PYSPARK_SUBMIT_ARGS=given).wait().expect_success()
        return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]

    def test_the_processes_know_each_other(self, jobs, cluster, tmp_path):
        both = self.seen(jobs, cluster, tmp_path)
        assert [one["number"] for one in both] == [0, 1]
        assert both[0]["addresses"] == both[1]["addresses"]
        hosts = [address.rpartition(":")[0] for address in both[0]["addresses"]]
        assert (hosts, len({*both[0]["addresses"]})) == (["127.0.0.1"] * 2, 2)
        assert all(one["gathered"] == ["from 0", "from 1"] for one in both)
        assert all((one["cores"], one["gpus"]) == (1, "-1") for one in both)

    @pytest.mark.cluster
    def test_each_has_the_gpus_that_spark_assigns(self, jobs, cluster, tmp_path):
        """As assignment only: no GPU is needed, nor used."""
        asked = [f"spark.{what}.resource.gpu.amount=1" for what in ("executor", "task")]
        both = self.seen(jobs, cluster, tmp_path, "--conf", asked[0], "--conf", asked[1])
        assert [one["gpus"] for one in both] == ["5", "5"]
