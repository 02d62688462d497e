"""Lines that are removed from the stderr of the process, which pytest captures here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from fer_pipeline.io.stderr_filter import StderrFilter
from tests.helpers.processes import ROOT

CLOSED_STDERR = """
import os
from fer_pipeline.io.stderr_filter import StderrFilter
os.close(2)
with StderrFilter(bytes.upper).filter_stderr():
    print("still running")
print(os.listdir("/proc/self/fd"))
"""


def remove_noise(text: bytes) -> bytes:
    """Remove the lines that begin with `noise`."""
    lines = text.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"noise"))


def write(text: str) -> None:
    """Write to stderr like a library in C++."""
    os.write(2, text.encode())


def test_lines_are_removed_only_in_the_block(capfd):
    stderr_filter = StderrFilter(remove_noise)
    write("noise before\n")
    with stderr_filter.filter_stderr():
        write("noise\n")
        print("a warning", file=sys.stderr)
        write("noise again\n")
    write("noise after\n")
    with stderr_filter.filter_stderr():
        write("noise in a second block\nand text without an end")
    assert capfd.readouterr().err == (
        "noise before\na warning\nnoise after\nand text without an end"
    )


def test_all_lines_remain_if_the_block_raises(capfd):
    stderr_filter = StderrFilter(remove_noise)

    def fail() -> None:
        with stderr_filter.filter_stderr():
            write("noise that may explain the error\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    with stderr_filter.filter_stderr():
        write("noise\n")
    assert capfd.readouterr().err == "noise that may explain the error\n"


def test_blocks_may_be_nested_and_overlap_in_threads(capfd):
    stderr_filter = StderrFilter(remove_noise)
    is_inside, may_end = threading.Event(), threading.Event()

    def wait_in_block() -> None:
        with stderr_filter.filter_stderr():
            is_inside.set()
            may_end.wait(10)
            write("noise of the thread\n")

    thread = threading.Thread(target=wait_in_block)
    with stderr_filter.filter_stderr(), stderr_filter.filter_stderr():
        thread.start()
        is_inside.wait(10)
        write("noise\nfirst\n")
    write("noise while the thread is still in its block\nsecond\n")
    may_end.set()
    thread.join()
    write("third\n")
    assert capfd.readouterr().err == "first\nsecond\nthird\n"


def test_a_closed_stderr_stays_closed():
    out = subprocess.check_output(
        [sys.executable, "-c", CLOSED_STDERR],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    running, descriptors = out.splitlines()
    assert running == "still running"
    # The last one belongs to the listing itself.
    assert descriptors in ("['0', '1', '2']", "['0', '1', '3']")
