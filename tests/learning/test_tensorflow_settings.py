"""Environment variables that the package sets before TensorFlow is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EVALUATE = "import fer_pipeline.learning, tensorflow; print(float(tensorflow.ones(()) + 1))"
PRINT_SETTING = (
    "import os, platform, sys;"
    "platform.machine = lambda: sys.argv[1];"
    "import fer_pipeline.learning;"
    "assert 'tensorflow' not in sys.modules;"
    "print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
)


@pytest.mark.parametrize(
    ("machine", "users", "expected"),
    [
        ("x86_64", None, "1"),
        ("x86_64", "0", "0"),
        # TensorFlow's own choice.
        ("aarch64", None, "None"),
    ],
)
def test_onednn_is_enabled_on_x86_unless_the_user_sets_it(machine, users, expected) -> None:
    inherited = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment = inherited | ({} if users is None else {"TF_ENABLE_ONEDNN_OPTS": users})

    output = subprocess.check_output(
        [sys.executable, "-c", PRINT_SETTING, machine], env=environment, text=True
    )

    assert output.strip() == expected


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver for GPUs")
def test_no_error_is_logged_on_a_machine_without_a_gpu() -> None:
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}

    process = subprocess.run(
        [sys.executable, "-c", EVALUATE], env=inherited, capture_output=True, text=True, check=True
    )

    assert process.stdout == "2.0\n"
    assert not [line for line in process.stderr.splitlines() if line.startswith(("E0", "F0"))]
