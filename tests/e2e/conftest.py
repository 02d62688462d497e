"""The jobs as a user runs them: processes with arguments, files, a status and two streams."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fer_pipeline import synthetic

ROOT = Path(__file__).resolve().parents[2]
ROWS, BROKEN, REAL_STEP = 1200, 12, 16

# No job of these tests takes longer, not even on a busy machine; Spark looks for a master for 60 s.
_LIMIT = 150.0

# A quarter of the images that the network of the demo sees, and a few steps.
CONFIG = """\
seed: 3
input: {max_quarantined_fraction: 0.02}
image: {size: 28}
variants: {flip: true}
output: {files_per_split: 4}
model: {name: system_a, options: {hidden: 16}}
training: {steps: 60, validate_every_steps: 20}
"""


@dataclass(frozen=True)
class Done:
    """A process that has ended."""

    status: int
    out: str
    err: str

    def expect_success(self) -> None:
        """It ended well and said nothing of a mistake."""
        assert self.status == 0, self.err
        assert "Traceback" not in self.err
        assert "error: " not in self.err

    def expect_error(self, says: str, status: int = 1) -> None:
        """It ended with one line, the last one, and said nothing else of a mistake."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert "Traceback" not in self.err
        assert (self.status, self.out, len(errors)) == (status, "", 1), self.err
        assert lines[-1] == errors[0]
        assert says in errors[0]


class Running:
    """A process that leads a session of its own, as one does that a terminal runs."""

    def __init__(self, command: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self._folder = cwd
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # In a shell's background SIGINT is ignored, and what is started inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def until(self, moment: Callable[[], bool]) -> None:
        """Waits for a moment that comes before the end."""
        end = time.monotonic() + _LIMIT
        while True:
            began = time.monotonic()
            if moment():
                return
            assert self._process.poll() is None, "".join(self._process.communicate())
            assert began < end, "the moment did not come"
            # To look takes time too, which the process is not to miss.
            time.sleep(max(0.003, 2 * (time.monotonic() - began)))

    @property
    def has_ended(self) -> bool:
        """Whether it has, if not all that it started."""
        return self._process.poll() is not None

    def programs(self) -> dict[int, str]:
        """All processes of its session, by their id: those that it started too."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self._process.pid and state != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group, as a terminal does."""
        os.killpg(self._process.pid, number)

    def send(self, number: int) -> Done:
        """Sends a signal that ends it, and waits for the end."""
        self.signal(number)
        return self.wait(limit=30)

    def wait(self, limit: float = _LIMIT) -> Done:
        """Waits for the end of it and of all that it started."""
        try:
            out, err = self._process.communicate(timeout=limit)
            # Spark's Python workers are no members of the group; they notice that Spark is gone.
            end = time.monotonic() + 20
            while self.programs() and time.monotonic() < end:
                time.sleep(0.02)
            assert not self.programs(), "it left processes behind"
        except subprocess.TimeoutExpired:
            left = "\n".join(self.programs().values())
            self.stop()
            _, err = self._process.communicate()
            pytest.fail(f"it does not end; still there:\n{left}\nit said:\n{err}")
        finally:
            self.stop()
        return Done(self._process.returncode, out, err)

    def stop(self) -> None:
        """Leaves nothing behind, whatever a test made of it."""
        for pid in self.programs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


class Jobs:
    """Runs jobs."""

    def __init__(self, scratch: Path) -> None:
        ours = ("SPARK_", "PYSPARK_", "MASTER", "TF_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        # What a killed Spark leaves of its own stays among the tests' files.
        self.environment = {
            **inherited,
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_DIRS": str(scratch),
        }
        self._running: list[Running] = []

    def start(self, *arguments: str, cwd: Path, **environment: str) -> Running:
        """Starts `./spark-submit.sh` with these arguments."""
        command = [str(ROOT / "spark-submit.sh"), *arguments]
        return self.start_command(command, cwd, **environment)

    def start_command(self, command: list[str], cwd: Path, **environment: str) -> Running:
        """Starts any command."""
        running = Running(command, cwd, {**self.environment, **environment})
        self._running.append(running)
        return running

    def run(self, *arguments: str, cwd: Path, **environment: str) -> Done:
        """Runs `./spark-submit.sh` with these arguments to its end."""
        return self.start(*arguments, cwd=cwd, **environment).wait()

    def stop(self) -> None:
        """Ends what is still running."""
        for running in self._running:
            running.stop()


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    made = Jobs(tmp_path_factory.mktemp("spark"))
    yield made
    made.stop()


@dataclass(frozen=True)
class Dataset:
    """What preprocess made of the drawn faces, and what it said."""

    home: Path
    folder: Path
    done: Done

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A user's folder: `faces.csv`, drawn, some rows of it broken, and `small.yaml`.

    With --fer2013 the faces are real ones.
    """
    folder = tmp_path_factory.mktemp("a user's folder")
    real = pytestconfig.getoption("--fer2013")
    if real:
        with Path(real).open() as rows:
            header = next(rows)
            # From all over the file: the usages stand one after the other.
            some = itertools.islice(rows, 0, None, REAL_STEP)
            (folder / "faces.csv").write_text(header + "".join(some))
    else:
        synthetic.write_csv(folder / "faces.csv", ROWS, seed=2, broken=BROKEN)
    (folder / "small.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="session")
def dataset(jobs: Jobs, home: Path) -> Dataset:
    """`data` in the user's folder, with nothing said to Spark."""
    options = ("--config", "small.yaml", "--input", "faces.csv", "--output", "data")
    return Dataset(home, home / "data", jobs.run("preprocess", *options, cwd=home))


@pytest.fixture(scope="session")
def on_disk() -> Callable[[Path], dict[str, bytes]]:
    """What a folder holds."""

    def look(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    return look


@pytest.fixture(scope="session")
def named() -> Callable[[Path], set[str]]:
    """The files that a dataset's manifest names, and the two beside them; all are whole."""

    def look(folder: Path) -> set[str]:
        manifest = json.loads((folder / "manifest.json").read_text())
        for file in manifest["files"]:
            assert (folder / file["path"]).stat().st_size == file["bytes"]
        for path in manifest["quarantine"]:
            assert (folder / path).is_file()
        files = {file["path"] for file in manifest["files"]}
        return {"manifest.json", "config.yaml", *files, *manifest["quarantine"]}

    return look
