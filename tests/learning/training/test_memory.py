"""Memory that training keeps for its next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_COUNT_PAGE_FAULTS = """
import resource, sys, threading
import numpy as np
from fer_pipeline.learning.training.memory import keep_freed_memory

def run_steps(count):
    for _ in range(count):
        arrays = [np.ones(250_000) for _ in range(20)]

if sys.argv[1] == "keep":
    assert keep_freed_memory()
# TensorFlow allocates in threads, which have heaps of their own.
for count in (3, 50):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=run_steps, args=(count,))
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def count_page_faults(mode: str, **environment: str) -> int:
    """Return the page faults of 50 steps in a process of its own."""
    command = [sys.executable, "-c", _COUNT_PAGE_FAULTS, mode]
    output = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    return int(output)


@on_glibc
def test_a_step_uses_the_memory_of_the_step_before() -> None:
    # A step allocates 40 MB, which are 10,000 pages.
    assert count_page_faults("keep") < 50_000 < count_page_faults("leave")


@on_glibc
def test_settings_of_the_user_are_left_alone(monkeypatch) -> None:
    from fer_pipeline.learning.training.memory import keep_freed_memory

    monkeypatch.setenv("MALLOC_TOP_PAD_", "100000")
    assert not keep_freed_memory()
