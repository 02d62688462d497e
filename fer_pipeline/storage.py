"""The one module that knows filesystems.

A path is a local path or a `file:` URL. Whatever is written here appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from fer_pipeline.errors import StorageError


def local_path(path: str | Path) -> Path:
    """The local path behind a path or a `file:` URL.

    Raises:
        StorageError: It is a URL of another scheme.
    """
    text = str(path)
    if not re.match(r"^[A-Za-z][A-Za-z0-9+.-]+:", text):
        return Path(text).expanduser()
    url = urlparse(text)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise StorageError(
            f"{text}: outputs, datasets and runs are local paths or file: URLs so far"
        )
    return Path(unquote(url.path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Raises:
        StorageError: The folder cannot be written, the disk is full, ...
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last: some writers choose their format by it.
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        # mkstemp makes it readable by its owner alone, unlike every other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        StorageError: It is not there or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StorageError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


@contextlib.contextmanager
def parquet_file(path: Path) -> Iterator[str]:
    """Where a Parquet writer writes a file that does not matter before a manifest names it.

    Raises:
        StorageError: The folder cannot be written, the disk is full, ...
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield str(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
