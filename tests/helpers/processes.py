"""Python programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with the package on its path."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


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
