"""Python programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB_TIMEOUT = 150.0
"""Seconds. No job of the tests takes longer, even on a busy machine; the search for a Spark master
alone takes 60 s."""

_BLOCKING_FINDER = """
import sys
from importlib.machinery import PathFinder

class BlockingFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {packages} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = BlockingFinder
"""


@dataclass(frozen=True)
class FinishedJob:
    """A process that has ended."""

    status: int
    out: str
    err: str

    def expect_success(self) -> None:
        """Assert that the job succeeded and printed no error."""
        assert self.status == 0, self.err
        assert "Traceback" not in self.err
        assert "error: " not in self.err

    def expect_error(self, message: str, status: int = 1) -> None:
        """Assert that the job failed, and that its only error is the last line of stderr."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert "Traceback" not in self.err
        assert (self.status, self.out, len(errors)) == (status, "", 1), self.err
        assert lines[-1] == errors[0]
        assert message in errors[0]


def make_job_environment() -> dict[str, str]:
    """Return the environment variables of a job, free of the caller's for Spark and TensorFlow."""
    prefixes = ("SPARK_", "PYSPARK_", "MASTER", "TF_")
    return {key: text for key, text in os.environ.items() if not key.startswith(prefixes)}


def run_python(
    *arguments: object, path: Iterable[Path] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python with the package on its path.

    Args:
        arguments: Arguments of Python.
        path: Folders to put before the package on Python's path, and on that of its children.
        cwd: Current folder of the process.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def block_packages(folder: Path, packages: Iterable[str]) -> Path:
    """Write a module that makes packages look as if they were not installed.

    Args:
        folder: New folder for the module, which every Python runs that has the folder on its path.
        packages: Names with which the packages are imported.

    Returns:
        The folder.
    """
    folder.mkdir()
    program = _BLOCKING_FINDER.format(packages=set(packages))
    (folder / "sitecustomize.py").write_text(program)
    return folder


def show_help(job: Path, packages: set[str]) -> subprocess.CompletedProcess[str]:
    """Run a job with --help; the last line that it prints lists those packages it imported."""
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{job.stem!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(job)!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        f"    print(sorted({packages!r} & set(sys.modules)))\n"
    )
    return run_python("-c", program)
