"""The one module that knows filesystems.

A path is a local path or a `file:` URL. Whatever is written here appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ValidationError

from fer_pipeline.errors import DatasetError, RunError, StorageError

log = logging.getLogger(__name__)

Description = TypeVar("Description", bound=BaseModel)


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
    # In a path, "?" and "#" are letters like any other.
    tail = text.partition(url.path)[2] if url.path else ""
    return Path(unquote(url.path + tail))


def temporary_pattern(name: str) -> re.Pattern[str]:
    """What the temporary file of a file of this name is called, see `replacing`."""
    path = Path(name)
    return re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")


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
        # What stands at the path survives a loss of power, too.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Makes an empty file where there is none.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether a file is this process's alone within; where there are no locks it always is.

    Raises:
        StorageError: It cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before may have deleted it, and then somebody else may have made another.
            ours = os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            ours = False
        except OSError as error:
            log.debug("%s: cannot be locked: %s", path, error)
            ours = True
        yield ours


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


def move(source: Path, target: Path) -> None:
    """Puts a file in the place of another, in one step.

    Raises:
        StorageError: The place cannot be written.
    """
    with _as_ours(target):
        source.replace(target)


def remove(path: Path) -> None:
    """Deletes a file, if it is there.

    Raises:
        StorageError: It cannot be deleted.
    """
    with _as_ours(path):
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder with all that it holds, if it is there.

    Raises:
        StorageError: It cannot be deleted.
    """
    if not path.is_dir():
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be deleted: {error.strerror or error}") from error


def require_format(
    folder: Path, text: str, newest: int, error: type[DatasetError] | type[RunError]
) -> None:
    """Refuses what a later version of this package has written.

    Args:
        folder: Where it stands, for the message.
        text: JSON with a key `format_version`.
        newest: The newest version of the format that is understood.
        error: What is raised.
    """
    try:
        found = json.loads(text).get("format_version", 0)
    except (ValueError, AttributeError):
        return
    if isinstance(found, int) and found > newest:
        raise error(
            f"{folder}: its format is {found}, this version reads up to {newest};"
            " update fer_pipeline"
        )


def read_described(
    path: Path,
    kind: type[Description],
    newest: int,
    error: type[DatasetError] | type[RunError],
    damaged: str,
) -> Description:
    """Reads the JSON that says what its folder holds.

    Args:
        path: The file.
        kind: What it has to be.
        newest: The newest version of the format that is understood.
        error: What is raised where it is not.
        damaged: What the message says of it then.

    Raises:
        StorageError: It cannot be read.
    """
    text = read_text(path)
    require_format(path.parent, text, newest, error)
    try:
        return kind.model_validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise error(f"{path}: {damaged}: {key}: {first['msg']}") from invalid


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
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error
