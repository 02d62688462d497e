"""Environment variables that the package sets before TensorFlow is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline import learning

IMPORT = """
import os, sys, threading
import fer_pipeline.learning

thread = threading.Timer(0.2, os.write, (2, b"a warning of another thread\\n"))
thread.start()
import tensorflow, keras
thread.join()
print(float(tensorflow.ones(()) + 1))
packages = ["jax", "matplotlib", "sklearn"]
print([name for name in packages if name in sys.modules])
from keras.wrappers import SKLearnClassifier
print(SKLearnClassifier.__name__, keras.visualization.plot_image_gallery.__name__)
import jax
print(tensorflow.lite.TFLiteConverter.__name__, jax.numpy.ones(()).dtype)
print([name for name in packages if name in sys.modules])
"""
PRINT_SETTING = (
    "import importlib, os, platform, sys;"
    "platform.machine = lambda: sys.argv[1];"
    "importlib.import_module(sys.argv[2]);"
    "assert 'tensorflow' not in sys.modules;"
    "print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
)


# A benchmark may import Keras first, so all of them need the settings.
@pytest.mark.parametrize("package", ["fer_pipeline.learning", "benchmarks"])
@pytest.mark.parametrize(
    ("machine", "users", "expected"),
    [
        ("x86_64", None, "1"),
        ("x86_64", "0", "0"),
        # TensorFlow's own choice.
        ("aarch64", None, "None"),
    ],
)
def test_onednn_is_enabled_on_x86_unless_the_user_sets_it(
    machine, users, expected, package
) -> None:
    inherited = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment = inherited | ({} if users is None else {"TF_ENABLE_ONEDNN_OPTS": users})

    output = subprocess.check_output(
        [sys.executable, "-c", PRINT_SETTING, machine, package], env=environment, text=True
    )

    assert output.strip() == expected


@pytest.fixture(scope="module")
def importing_process() -> subprocess.CompletedProcess[str]:
    """A process that imports TensorFlow and Keras, and then uses what was not imported with them.

    The environment sets nothing for TensorFlow.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    return subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=True
    )


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver for GPUs")
def test_tensorflow_writes_nothing_to_stderr_on_a_machine_without_a_gpu(importing_process) -> None:
    assert importing_process.stderr == "a warning of another thread\n"


def test_optional_packages_are_imported_only_when_they_are_used(importing_process) -> None:
    assert importing_process.stdout.splitlines() == [
        "2.0",
        "[]",
        "SKLearnClassifier plot_image_gallery",
        "TFLiteConverterV2 float32",
        "['jax', 'matplotlib', 'sklearn']",
    ]


@pytest.mark.parametrize(
    ("level", "remaining"),
    [("0", "WIEF"), ("1", "WEF"), ("2", "EF"), ("3", "F"), ("", "WIEF"), ("all", "WIEF")],
)
def test_start_messages_below_the_level_of_the_user_are_removed(
    level, remaining, monkeypatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    messages = {
        "W": "2026-01-02 03:04:05.678901: W tensorflow/a.cc:1] of a device\n",
        "I": "I0000 00:00:1767323045.678901   12345 cpu_feature_guard.cc:227] This TensorFlow ...\n"
        "To enable the following instructions: AVX2, rebuild TensorFlow ...\n",
        "E": "E0000 00:00:1767323045.678901   12345 cuda.cc:3] no driver\n",
        "F": "F0000 00:00:1767323045.678901   12345 cpu.cc:4] no AVX\n",
    }
    other_lines = "03:04:05 WARNING of this package\nInformation: I0000 is no prefix here\n"
    text = "".join(messages.values()) + other_lines
    expected = "".join(messages[letter] for letter in remaining) + other_lines
    assert learning._remove_start_messages(text.encode()).decode() == expected
