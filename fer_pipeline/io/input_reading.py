"""Opening of input files by the names under which they are listed, see `input_listing`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO, cast

from fer_pipeline.errors import StorageError
from fer_pipeline.io.file_names import decode_file_name, encode_file_name
from fer_pipeline.io.paths import is_local, parse_path
from fer_pipeline.text import one_line

_HADOOP_SCHEMES = frozenset(("viewfs", "dbfs", "s3a", "s3n", "wasb", "wasbs"))
_SCHEMES_WITHOUT_HADOOP = frozenset(("s3", "http", "https"))

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(name: str) -> bool:
    """Return whether a name is the URL of a filesystem, and not a local path."""
    return bool(_URL.match(name)) and not name.startswith("file:")


def is_hadoop_url(name: str) -> bool:
    """Return whether only Hadoop, in Spark's JVM, can read a URL.

    This is so for the schemes that Hadoop defines, and for filesystems whose package for fsspec is
    not installed. Without `s3fs`, `s3:` is an error that names the package, not Hadoop's `s3a:`.
    """
    if not is_url(name) or "::" in name:
        return False
    # Imported only for URLs: local files do not need fsspec.
    import fsspec

    scheme = name.partition("://")[0]
    if scheme in _HADOOP_SCHEMES or scheme not in fsspec.available_protocols():
        return True
    if scheme in _SCHEMES_WITHOUT_HADOOP:
        return False
    try:
        fsspec.get_filesystem_class(scheme)
        if scheme == "hdfs":
            # Its package, pyarrow, needs libhdfs as well.
            parse_path(name)
    except (ImportError, StorageError):
        return True
    return False


def make_listed_name(path: Path) -> str:
    """Return the name under which a file or folder is listed: an absolute path, or a URL."""
    return decode_file_name(os.fsencode(path.absolute())) if is_local(path) else str(path)


def open_input(name: str) -> BinaryIO:
    """Open a listed file for reading.

    Args:
        name: Absolute path as `decode_file_name` returns it, or URL.

    Raises:
        OSError: The file cannot be opened. Filesystems of URLs may raise other exceptions.
    """
    if is_url(name):
        return cast(BinaryIO, parse_path(name).open("rb"))
    return open(encode_file_name(name), "rb")


def describe_read_error(error: Exception) -> str:
    """Return the reason why a file cannot be read, as one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file; it may have been deleted since the job started"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {one_line(error) or type(error).__name__}"
