"""Users, machines and locales that a container or a remote login may have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline.data.scores import read_scores
from tests.helpers.fer_csv import make_image
from tests.helpers.images import encode_image

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "score.py"


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
