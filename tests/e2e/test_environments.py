"""Users, machines and locales that a container or a remote login may have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.data.scores import read_scores
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.images import encode_image

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "score.py"
SUBMIT = str(ROOT / "spark-submit.sh")


def score(
    folder: Path, *prefix: str, command: tuple[str, ...] = (sys.executable, str(JOB)), **env: str
) -> subprocess.CompletedProcess[str]:
    """Score the faces in a folder in a process of its own, started by a prefix such as unshare."""
    options = ("--input", str(folder / "faces"), "--output", str(folder / "scores"))
    return subprocess.run(
        [*prefix, *command, *options],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a folder of faces, whose names are of all kinds."""
    (tmp_path / "faces").mkdir()
    for seed, name in enumerate((b"a.png", "k\u00e4se.png".encode(), b"t\x84.png")):
        path = tmp_path / "faces" / os.fsdecode(name)
        path.write_bytes(encode_image(".png", make_image(seed)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.UTF-8"])
def test_names_do_not_depend_on_the_locale(folder, locale) -> None:
    process = score(folder, LC_ALL=locale)
    assert process.returncode == 0, process.stderr
    sources = read_scores(folder / "scores").column("source").to_pylist()
    names = sorted(source.removeprefix(f"{folder}/faces/") for source in sources)
    assert names == ["a.png", "k\u00e4se.png", r"t\x84.png"]


def test_the_error_for_a_user_without_a_name_is_one_line() -> None:
    if os.geteuid():
        pytest.skip("only the superuser can become another user")
    # After the imports, because another user may not be allowed to read the files of this Python.
    program = (
        "import os\n"
        "from fer_pipeline.errors import SparkStartError\n"
        "from fer_pipeline.spark.session import spark_session\n"
        "os.setuid(54321)\n"
        "try:\n"
        "    with spark_session('score'): pass\n"
        "except SparkStartError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.startswith("the user with the number 54321 has no name here")
    assert process.stdout.count("\n") == 1


@pytest.mark.slow
def test_a_host_without_an_address_runs_jobs(folder) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("only the superuser can change the name of the host, with unshare")
    prefix = ("unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$@"', "sh")
    process = score(folder, *prefix)
    assert process.returncode == 0, process.stderr
    assert len(read_scores(folder / "scores")) == 3


@pytest.fixture(scope="module")
def large_photos(tmp_path_factory) -> Path:
    """A folder of 160 files of 12 MB, hard links of one."""
    folder = tmp_path_factory.mktemp("photos") / "train" / "happy"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (3400, 3600), np.uint8)
    (folder / "0.png").write_bytes(encode_image(".png", noise))
    for number in range(1, 160):
        os.link(folder / "0.png", folder / f"{number}.png")
    return folder.parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("memory", ["512m", "1g"])
@pytest.mark.parametrize("job", ["score", "preprocess"])
def test_large_photographs_need_no_memory_of_java(large_photos, tmp_path, job, memory) -> None:
    """With the defaults of Spark, whole files filled the memory of Java, and the job hung."""
    command = [SUBMIT, "--master", "local[8]", "--driver-memory", memory, job]
    options = ["--input", str(large_photos), "--output", str(tmp_path / "out")]
    if job == "preprocess":
        options += ["--set", "split.deduplicate=false"]
    process = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=800
    )
    assert process.returncode == 0, process.stderr
    if job == "score":
        scores = json.loads((tmp_path / "out/scores.json").read_text())
        assert (scores["images"], scores["scored"]) == (160, 160)
    else:
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert (manifest["rows"]["read"], manifest["rows"]["kept"]["train"]["happy"]) == (160, 160)


@pytest.fixture
def folder_outside_of_tmp() -> Iterator[Path]:
    """A folder that a test still sees after it has mounted another /tmp."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("only the superuser can mount a /tmp of a process, with unshare")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        if any(
            path.is_relative_to("/tmp") for path in (ROOT, Path(sys.prefix), Path(name).resolve())
        ):
            pytest.skip("this checkout, its Python or /var/tmp is in /tmp")
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_neither_an_executable_tmp_nor_a_home_is_needed(folder_outside_of_tmp) -> None:
    folder = folder_outside_of_tmp
    (folder / "home").mkdir()
    rows = [format_row(n % 7, make_image(n), "Training") for n in range(70)]
    write_csv(folder / "faces.csv", rows)
    script = (
        "set -e;"
        "mount -t tmpfs -o noexec tmpfs /tmp;"
        f"mount -t tmpfs -o ro tmpfs '{folder}/home';"
        f"'{SUBMIT}' --master 'local[2]' preprocess --input faces.csv --output data;"
        f"'{SUBMIT}' --master 'local[2]' score --input data --output scores"
    )
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=folder,
        env={**os.environ, "HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert process.returncode == 0, process.stderr
    assert len(read_scores(folder / "scores")) == 70
