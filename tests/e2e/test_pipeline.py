"""All jobs in turn, as a user runs them: arguments in, files and streams out."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from fer_pipeline.config import load_config
from tests.helpers.folders import RUN_FILES, list_dataset_files, read_files
from tests.helpers.processes import FinishedJob

ROOT = Path(__file__).resolve().parents[2]
PREPROCESS = ROOT / "jobs" / "preprocess.py"
JOBS = ("preprocess", "train", "evaluate", "compare", "score", "export", "preview", "summarize")
WITHOUT_FOLDER = ("preview", "summarize")  # they write one picture
CONFIG_OPTIONS = ("--config", "small.yaml")
INPUT_OPTIONS = ("--config", "small.yaml", "--input", "faces.csv")


@dataclass(frozen=True)
class JobOutput:
    """A finished job and its output folder."""

    job: FinishedJob
    folder: Path

    @property
    def lines(self) -> list[str]:
        return self.job.out.splitlines()

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def second_dataset(shared_process, dataset) -> JobOutput:
    """The dataset again, from more tasks and in more files."""
    options = (*INPUT_OPTIONS, "--output", "again", "--set", "output.files_per_split=7")
    job = shared_process.run("preprocess", *options, cwd=dataset.home)
    return JobOutput(job, dataset.home / "again")


@pytest.fixture(scope="module")
def runs(jobs, shared_process, dataset) -> tuple[JobOutput, JobOutput]:
    """Two runs with the same seed, in different processes."""
    train = ("train", *CONFIG_OPTIONS, "--dataset", "data", "--output")
    home = dataset.home
    return (
        JobOutput(jobs.run(*train, "run", cwd=home), home / "run"),
        JobOutput(shared_process.run(*train, "run again", cwd=home), home / "run again"),
    )


@pytest.fixture(scope="module")
def scores(shared_process, dataset, runs) -> JobOutput:
    """Scores of the CSV."""
    score = ("score", *INPUT_OPTIONS, "--model", "run", "--output", "scores")
    return JobOutput(shared_process.run(*score, cwd=dataset.home), dataset.home / "scores")


@pytest.fixture(scope="module")
def report(shared_process, dataset, runs) -> JobOutput:
    """An evaluation on the test split."""
    evaluate = ("evaluate", *CONFIG_OPTIONS, "--model", "run", "--dataset", "data")
    return JobOutput(
        shared_process.run(*evaluate, "--output", "report", cwd=dataset.home),
        dataset.home / "report",
    )


@pytest.fixture(scope="module")
def export(shared_process, dataset, runs) -> JobOutput:
    """The run's model in all export formats."""
    options = ("export", *CONFIG_OPTIONS, "--model", "run", "--output", "exported")
    return JobOutput(shared_process.run(*options, cwd=dataset.home), dataset.home / "exported")


def read_rows(folder: Path, files: list[str]) -> list[dict[str, Any]]:
    """Return the rows of Parquet files, whose paths are relative to the folder."""
    # A ParquetFile, not a dataset: that would make a column of a folder `split=train`.
    return [row for name in files for row in pq.ParquetFile(folder / name).read().to_pylist()]


# --- Output of the jobs: files, stdout and stderr.


def test_preprocess_writes_and_prints_consistent_counts(dataset) -> None:
    dataset.job.expect_success()
    manifest = dataset.manifest
    counts = manifest["counts"]
    rows = manifest["rows"]
    kept_count = sum(sum(split.values()) for split in rows["kept"].values())
    dropped_count = sum(rows["dropped"].values())
    quarantined_count = sum(rows["quarantined"].values())
    splits = ("train", "validation", "test")

    assert rows["read"] == 1200 == kept_count + dropped_count + quarantined_count
    assert (quarantined_count, dropped_count > 0) == (12, True)
    assert set(read_files(dataset.folder)) == list_dataset_files(dataset.folder)
    for split in splits:
        files = [file["path"] for file in manifest["files"] if file["split"] == split]
        stored = Counter(row["emotion"] for row in read_rows(dataset.folder, files))
        assert stored == Counter(counts[split])
    # Stdout holds only the result.
    lines = [line.split() for line in dataset.job.out.splitlines()]
    assert lines[:9] == [
        list(splits),
        *(
            [name, *(f"{counts[split][name]:,}" for split in splits)]
            for name in manifest["classes"]
        ),
        ["all", *(f"{sum(counts[split].values()):,}" for split in splits)],
    ]
    causes = [f"  dropped, {cause}: {n}" for cause, n in rows["dropped"].items() if n]
    causes += [f"  quarantined, {reason}: {n}" for reason, n in rows["quarantined"].items() if n]
    assert dataset.job.out.splitlines()[9:] == [
        "",
        f"1,200 records read = {kept_count:,} kept + {dropped_count} dropped"
        f" + {quarantined_count} quarantined; {rows['written']:,} rows written",
        *causes,
        f"checksum {manifest['checksum']}",
        "dataset data",
    ]


@pytest.mark.slow
def test_preprocess_runs_under_plain_spark_submit(jobs, dataset) -> None:
    options = (*INPUT_OPTIONS, "--output", "plain")
    process = jobs.submit(PREPROCESS, *options, cwd=dataset.home)

    assert process.status == 0, process.err
    assert process.out.splitlines()[-1] == "dataset plain"
    folder = dataset.home / "plain"
    assert set(read_files(folder)) == list_dataset_files(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["checksum"] == dataset.manifest["checksum"]


@pytest.mark.slow
def test_the_error_for_a_mistake_under_plain_spark_submit_is_one_line(jobs, home) -> None:
    process = jobs.submit(PREPROCESS, "--input", "nothing.csv", "--output", "none", cwd=home)

    assert process.status != 0
    # spark-submit writes the stderr of the job to stdout.
    (error,) = [line for line in process.out.splitlines() if line.startswith("error: ")]
    assert error.endswith("/nothing.csv: no such file or folder")
    assert "Traceback" not in process.out + process.err


def test_partitions_and_files_do_not_change_the_dataset(dataset, second_dataset) -> None:
    second_dataset.job.expect_success()
    assert second_dataset.lines[-1] == "dataset again"
    assert set(read_files(second_dataset.folder)) == list_dataset_files(second_dataset.folder)
    first, second = dataset.manifest, second_dataset.json("manifest.json")

    assert len(first["files"]) != len(second["files"])
    assert first["checksum"] == second["checksum"]
    for key in ("counts", "rows", "sources", "image", "classes"):
        assert first[key] == second[key]


def test_train_writes_and_prints_the_best_step(runs, dataset) -> None:
    run = runs[0]
    run.job.expect_success()
    model_info = run.json("model.json")
    with (run.folder / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))

    written = {name for name in read_files(run.folder) if not name.startswith("tensorboard/")}
    assert written == RUN_FILES
    assert model_info["dataset_checksum"] == dataset.manifest["checksum"]
    assert model_info["classes"] == dataset.manifest["classes"]
    sha256 = hashlib.sha256((run.folder / "model.keras").read_bytes()).hexdigest()
    assert model_info["sha256"] == sha256
    assert [row["step"] for row in history] == ["0", "20", "40", "60"]
    best = max(history[1:], key=lambda row: float(row["validation_accuracy"]))
    assert str(model_info["best_step"]) == best["step"]
    assert str(model_info["best_accuracy"]) == best["validation_accuracy"]
    # Stdout holds only the result.
    assert len(run.lines) == 8
    assert run.lines[0].split()[:4] == ["step", "epoch", "loss", "accuracy"]
    assert [line.split()[0] for line in run.lines[1:5]] == ["0", "20", "40", "60"]
    assert run.lines[5:] == [
        "",
        f"system_a, {model_info['parameters']:,} parameters; kept: step {model_info['best_step']},"
        f" validation accuracy {model_info['best_accuracy']:.2%};"
        f" temperature {model_info['temperature']:.3f}",
        "model run/model.keras",
    ]
    # Stderr holds the log.
    assert " INFO step 60, epoch " in run.job.err


def hash_weights(run: JobOutput) -> dict[str, str]:
    """Return the SHA-256 of each weight array in a run's model."""
    digests = {}
    shutil.unpack_archive(run.folder / "model.keras", run.folder.parent / "unpacked", "zip")

    def add_digest(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            digests[name] = hashlib.sha256(node[()].tobytes()).hexdigest()

    with h5py.File(run.folder.parent / "unpacked" / "model.weights.h5") as file:
        file.visititems(add_digest)
    return digests


def test_equal_seeds_give_equal_weights(runs) -> None:
    first, second = map(hash_weights, runs)

    assert len(first) == 8
    assert first == second
    histories = {(run.folder / "history.csv").read_bytes() for run in runs}
    assert len(histories) == 1


def test_evaluate_writes_and_prints_the_report(report, dataset) -> None:
    report.job.expect_success()
    metrics = report.json("metrics.json")
    rows = read_rows(report.folder, ["predictions.parquet"])
    counts = dataset.manifest["counts"]["test"]

    assert Counter(row["emotion"] for row in rows) == Counter(counts)
    assert metrics["dataset"]["checksum"] == dataset.manifest["checksum"]
    accuracy = sum(row["correct"] for row in rows) / len(rows)
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["copies_in_training"]["deduplicated"]
    assert not any(row["copy_in_training"] for row in rows)
    assert "no image has an exact copy in the train split (split.deduplicate)" in report.lines
    # Stdout holds only the result.
    files = [
        "predictions.parquet",
        "confusion_matrix.png",
        "classes.png",
        "reliability.png",
        "coverage.png",
        "examples.png",
        "mistakes.png",
        "mistakes.csv",
        "feature_maps.png",
        "class_activation.png",
        "metrics.json",
        "config.yaml",
    ]
    assert set(read_files(report.folder)) == set(files)
    assert report.lines[0].split()[:3] == ["actual", "predicted", "true"]
    assert [line.split()[:2] for line in report.lines[1:8]] == [
        [name, str(n)] for name, n in counts.items()
    ]
    assert report.lines[-13:] == ["", *(f"wrote report/{name}" for name in files)]


def test_score_writes_and_prints_the_emotions(scores, dataset) -> None:
    scores.job.expect_success()
    score_info = scores.json("scores.json")
    files = [file["path"] for file in score_info["files"]]
    rows = read_rows(scores.folder, files)

    assert set(read_files(scores.folder)) == {"scores.json", "config.yaml", *files}
    assert sorted((row["source"], row["record"]) for row in rows) == [
        (str(dataset.home / "faces.csv"), record) for record in range(1200)
    ]
    emotions = Counter(row["emotion"] for row in rows if row["emotion"])
    assert score_info["emotions"] == {name: emotions[name] for name in dataset.manifest["classes"]}
    # Scoring ignores bad labels and usages: nine of the twelve bad rows have bad pixels.
    bad = Counter(row["reason"] for row in rows if row["reason"])
    assert (bad.total(), bad) == (9, score_info["unscored"])
    # Stdout holds only the result.
    assert [line.split() for line in scores.lines[:7]] == [
        [name, f"{emotions[name]:,}"] for name in dataset.manifest["classes"]
    ]
    assert scores.lines[7:] == [
        "",
        "1,200 images found = 1,191 scored + 9 not scored",
        *(f"  not scored, {reason}: {n}" for reason, n in score_info["unscored"].items()),
        "scores scores",
    ]


def test_evaluate_and_score_agree_on_each_image(report, scores) -> None:
    """One reads the dataset through the loader, the other the CSV in Spark's workers."""
    files = [file["path"] for file in scores.json("scores.json")["files"]]
    scored = {row["record"]: row for row in read_rows(scores.folder, files)}

    for row in read_rows(report.folder, ["predictions.parquet"]):
        score = scored[row["record"]]
        assert row["image_hash"] == score["image_hash"]
        names = [name for name in row if name.startswith("p_")]
        assert [row[name] for name in names] == pytest.approx([score[n] for n in names], abs=1e-5)


def test_export_writes_and_prints_all_formats(export, dataset, runs) -> None:
    export.job.expect_success()
    export_info = export.json("export.json")
    sha256 = {
        name: digest
        for export in export_info["exports"]
        for name, digest in export["sha256"].items()
    }
    files = read_files(export.folder)

    assert set(files) == {"export.json", "config.yaml", *sha256}
    assert sha256 == {name: hashlib.sha256(files[name]).hexdigest() for name in sha256}
    assert export_info["model"]["sha256"] == runs[0].json("model.json")["sha256"]
    assert export_info["classes"] == dataset.manifest["classes"]
    # Stdout holds only the result.
    assert [line.split()[:2] for line in export.lines[:3]] == [
        ["bytes", "difference"],
        ["saved_model", "exported/saved_model"],
        ["litert", "exported/model.tflite"],
    ]
    assert export.lines[-2:] == ["", "export exported/export.json"]


def test_each_output_has_its_configuration(
    dataset, second_dataset, runs, report, scores, export
) -> None:
    config = load_config(dataset.home / "small.yaml")
    config_again = load_config(dataset.home / "small.yaml", ["output.files_per_split=7"])

    for folder in (
        dataset.folder,
        *(output.folder for output in (*runs, report, scores, export)),
    ):
        assert load_config(folder / "config.yaml") == config
    assert load_config(second_dataset.folder / "config.yaml") == config_again


def test_jobs_leave_only_their_outputs_in_the_users_folder(
    dataset, second_dataset, runs, report, scores, export
) -> None:
    names = {path.name for path in dataset.home.iterdir()} - {"unpacked"}

    assert names == {
        "faces.csv",
        "small.yaml",
        "data",
        "again",
        "run",
        "run again",
        "report",
        "scores",
        "exported",
    }


# --- Mistakes of a user.


def _copy_with_changes(dataset: Path, copy: Path, **changes: Any) -> None:
    """Copy a dataset, and change keys of its manifest."""
    shutil.copytree(dataset, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for key, change in changes.items():
        manifest[key] = {**manifest[key], **change} if isinstance(change, dict) else change
    (copy / "manifest.json").write_text(json.dumps(manifest))


NO_MODEL = (
    "nothing: no such folder (no model.json); create one with the train job, or name compact or"
    " mirrored"
)
MISTAKES: dict[str, tuple[str, str]] = {
    "preprocess: no such input": (
        "preprocess --input nothing.csv --output {out}",
        "/nothing.csv: no such file or folder",
    ),
    "preprocess: no such column": (
        "preprocess --input headless.csv --output {out}",
        "/headless.csv: no column emotion, pixels, usage in its first line (got: 0, 1 2 3, ",
    ),
    "preprocess: too many bad rows": (
        "preprocess --input faces.csv --output {out} --set input.max_quarantined_fraction=0.001",
        "12 of 1200 records are bad, more than input.max_quarantined_fraction 0.001 allows",
    ),
    "preprocess: an unknown key": (
        "preprocess --input faces.csv --output {out} --set image.sizes=28",
        "error: --set image.sizes: unknown key, did you mean image.size?",
    ),
    "preprocess: no such configuration": (
        "preprocess --config nothing.yaml --input faces.csv --output {out}",
        "nothing.yaml: no such file",
    ),
    "preprocess: an output that is there": (
        "preprocess --input faces.csv --output data",
        "/data: holds a dataset already; --overwrite replaces it",
    ),
    "preprocess: nothing to ship": (
        "--archives nothing.tar.gz#environment preprocess --input faces.csv --output {out}",
        "/nothing.tar.gz: no such file to ship to the executors",
    ),
    "preprocess: no master": (
        "--master spark://127.0.0.1:1 preprocess --input faces.csv --output {out}",
        "spark://127.0.0.1:1: no Spark master answers there",
    ),
    "preprocess: a filesystem that Spark lacks": (
        "preprocess --input s3a://bucket/faces.csv --output {out}",
        "Spark needs --packages org.apache.hadoop:hadoop-aws:",
    ),
    "train: fewer rows in a batch than workers": (
        "train --workers 3 --dataset data --output {out} --set loader.batch_size=2",
        "loader.batch_size: is 2, and each of 3 workers needs a row of every batch; set a"
        " larger one",
    ),
    "train: no such dataset for workers": (
        # This is checked before the job connects to the master.
        "--master spark://127.0.0.1:1 train --workers 2 --dataset nothing --output {out}",
        "nothing: no such folder; create one with the preprocess job",
    ),
    "train: no such dataset": (
        "train --dataset nothing --output {out}",
        "nothing: no such folder; create one with the preprocess job",
    ),
    "train: two unknown keys": (
        "train --dataset data --output {out} --set trainin.steps=2 --set loader.batchsize=2",
        "error: --set loader.batchsize: unknown key, did you mean loader.batch_size?;"
        " --set trainin: unknown key, did you mean training?",
    ),
    "train: an output that is there": (
        "train --dataset data --output run",
        "run: holds a finished training run already; --overwrite replaces it",
    ),
    "evaluate: no such run": (
        "evaluate --model nothing --dataset data --output {out}",
        NO_MODEL,
    ),
    "evaluate: other classes": (
        "evaluate --model run --dataset five --output {out}",
        "five: its classes are angry, disgust, sad, happy, surprise, the model of run was trained"
        " for angry, disgust, fear, happy, sad, surprise, neutral;",
    ),
    "evaluate: an output that is there": (
        "evaluate --model run --dataset data --output report",
        "report: holds an evaluation already; --overwrite replaces it",
    ),
    "score: no such run": (
        "score --model nothing --input faces.csv --output {out}",
        NO_MODEL,
    ),
    "score: an output that is there": (
        "score --model run --input faces.csv --output scores",
        "/scores: holds scores already; --overwrite replaces it",
    ),
    "export: no such run": (
        "export --model nothing --output {out}",
        NO_MODEL,
    ),
    "export: an output that is there": (
        "export --model run --output exported",
        "exported: holds an export already; --overwrite replaces it",
    ),
}


@pytest.fixture(scope="module")
def mistakes(jobs, shared_process, dataset, runs, report, scores, export) -> dict[str, Any]:
    """The finished job of each mistake, and the user's files before and after all of them.

    Jobs with options of Spark have their own processes; the others share one.
    """
    five = ["angry", "disgust", "sad", "happy", "surprise"]
    _copy_with_changes(dataset.folder, dataset.home / "five", classes=five)
    (dataset.home / "headless.csv").write_text("0,1 2 3,Training\n" * 5)
    before = read_files(dataset.home)

    commands = {
        mistake: command.format(out=f"made-by-{number}").split(" ")
        for number, (mistake, (command, _)) in enumerate(MISTAKES.items())
    }
    own = {mistake: command for mistake, command in commands.items() if command[0][0] == "-"}
    with ThreadPoolExecutor(max_workers=1) as pool:
        finished = pool.map(lambda command: jobs.run(*command, cwd=dataset.home), own.values())
        shared = {
            mistake: shared_process.run(*command, cwd=dataset.home)
            for mistake, command in commands.items()
            if mistake not in own
        }
        jobs_by_mistake = {**shared, **dict(zip(own, finished, strict=True))}
    return {**jobs_by_mistake, "files": (before, read_files(dataset.home))}


@pytest.mark.timeout(600)  # The first one waits for all of them.
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistakes, mistake) -> None:
    mistakes[mistake].expect_error(MISTAKES[mistake][1])


def test_a_mistake_changes_nothing(mistakes) -> None:
    before, after = mistakes["files"]

    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("/no/python", "the executors have no /no/python, or not the Python that it links to; "),
        ("./bare-python", "the executors' Python has no "),
    ],
)
def test_executors_without_a_python_or_our_packages_are_one_line(
    jobs, home, tmp_path, python, message
) -> None:
    bare_python = home / "bare-python"
    bare_python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare_python.chmod(0o755)
    options = (*INPUT_OPTIONS, "--output", str(tmp_path / "out"))

    process = jobs.run("--conf", f"spark.pyspark.python={python}", "preprocess", *options, cwd=home)

    process.expect_error(message)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_unknown_job_is_refused(jobs, home) -> None:
    process = jobs.run("preproces", "--input", "faces.csv", cwd=home)

    assert (process.status, process.out) == (2, "")
    assert process.err == (
        "spark-submit.sh: there is no job 'preproces';"
        " the jobs are: compare evaluate export preprocess preview score summarize train\n"
    )


# --- Help.


@pytest.mark.parametrize("job", JOBS)
def test_help_names_the_options_of_a_job(jobs, home, job) -> None:
    process = jobs.run(job, "--help", cwd=home)

    assert (process.status, process.err) == (0, "")
    assert process.out.startswith(f"usage: spark-submit.sh {job} ")
    for option in ("--output", "--config", "--set", "--log-level"):
        assert option in process.out
    assert ("--overwrite" in process.out) == (job not in WITHOUT_FOLDER)


@pytest.mark.parametrize("job", JOBS)
def test_help_imports_neither_spark_nor_tensorflow(jobs, home, job) -> None:
    process = jobs.run(job, "--help", cwd=home, PYTHONPROFILEIMPORTTIME="1")

    imported = {line.rpartition("|")[2].strip() for line in process.err.splitlines()}
    assert {"argparse", "fer_pipeline.cli"} <= imported
    heavy = {"pyspark", "py4j", "tensorflow", "keras", "petastorm", "pyarrow", "matplotlib"}
    assert not {name.partition(".")[0] for name in imported} & heavy
