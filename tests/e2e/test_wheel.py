"""The wheel, unpacked into an empty folder and run from there, far from the checkout."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.processes import FinishedJob

ROOT = Path(__file__).resolve().parents[2]
INPUT_OPTIONS = ("--config", "small.yaml", "--input", "faces.csv")


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the content of the wheel, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Building leaves files beside the sources.
    shutil.copytree(
        ROOT / "fer_pipeline", source / "fer_pipeline", ignore=shutil.ignore_patterns("*.pyc")
    )
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.fixture(scope="module")
def run_console(jobs, home, site_packages) -> Callable[..., FinishedJob]:
    """A function that runs the command `fer-pipeline` of the wheel to its end."""
    (scripts,) = site_packages.glob("*.dist-info/entry_points.txt")
    assert "fer-pipeline = fer_pipeline.console:main" in scripts.read_text()

    def run(*arguments: str) -> FinishedJob:
        command = [sys.executable, "-m", "fer_pipeline", *arguments]
        return jobs.start_command(command, home, PYTHONPATH=str(site_packages)).wait()

    return run


def test_the_help_lists_the_jobs(run_console) -> None:
    process = run_console("--help")

    assert (process.status, process.err) == (0, "")
    assert "preprocess" in process.out


def test_jobs_path_is_within_the_wheel(run_console, site_packages) -> None:
    process = run_console("jobs-path")

    assert (process.status, process.err) == (0, "")
    assert process.out == f"{site_packages / 'fer_pipeline' / 'jobs'}\n"


@pytest.mark.slow
def test_the_console_command_writes_the_same_dataset_as_the_script(run_console, dataset) -> None:
    process = run_console("preprocess", *INPUT_OPTIONS, "--output", "console")

    process.expect_success()
    folder = dataset.home / "console"
    written = json.loads((folder / "manifest.json").read_text())
    assert written["checksum"] == dataset.manifest["checksum"]
    assert written["counts"] == dataset.manifest["counts"]


@pytest.mark.slow
def test_spark_submit_runs_a_file_of_jobs_path(run_console, jobs, site_packages, dataset) -> None:
    job = Path(run_console("jobs-path").out.strip()) / "preprocess.py"
    options = (*INPUT_OPTIONS, "--output", "submitted")
    process = jobs.submit(job, *options, cwd=dataset.home, PYTHONPATH=str(site_packages))

    assert process.status == 0, process.err
    written = json.loads((dataset.home / "submitted" / "manifest.json").read_text())
    assert written["checksum"] == dataset.manifest["checksum"]


def test_the_error_for_a_mistake_is_one_line(run_console) -> None:
    process = run_console("preprocess", "--input", "nothing.csv", "--output", "none")

    process.expect_error("nothing.csv")
