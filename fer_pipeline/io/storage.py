"""Reading and writing files on local disks and on other filesystems.

All functions take the paths of `fer_pipeline.io.paths`. A file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from fer_pipeline.errors import StorageError
from fer_pipeline.io.paths import get_filesystem, is_local
from fer_pipeline.text import one_line

log = logging.getLogger(__name__)

_ABANDONED_AFTER_SECONDS = 24 * 60 * 60.0
_DEFAULT_FILE_MODE = 0o666  # before the umask


def is_file(path: Path) -> bool:
    """Return whether a file exists.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.is_file() if is_local(path) else _read_type(path) == "file"


def is_folder(path: Path) -> bool:
    """Return whether a folder exists.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.is_dir() if is_local(path) else _read_type(path) == "directory"


def exists(path: Path) -> bool:
    """Return whether a file or a folder exists.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.exists() if is_local(path) else _read_type(path) is not None


def _read_type(path: Path) -> str | None:
    """Return "file", "directory" or None; fsspec's own `isfile` hides the errors of a server."""
    try:
        return str(get_filesystem(path).info(cast(Any, path).path)["type"])
    except FileNotFoundError:
        return None


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        StorageError: It does not exist or cannot be read.
    """
    with _translate_read_errors(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        StorageError: It does not exist or cannot be read.
    """
    with _translate_read_errors(path):
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    with _translate_errors(path, "read"):
        try:
            yield
        except FileNotFoundError:
            raise StorageError(f"{path}: no such file") from None


def _translate_write_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    return _translate_errors(path, "written")


@contextlib.contextmanager
def _translate_errors(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # Other filesystems raise classes of their own. On a local disk, another class than these
        # is a mistake in this package.
        if is_local(path) and not isinstance(error, OSError | UnicodeDecodeError):
            raise
        raise StorageError(f"{path}: cannot be {action}: {_format_reason(error)}") from error


def _format_reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return one_line(reason or error or type(error).__name__)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary local path whose file replaces `path` if the block succeeds.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    with _upload(path) if not is_local(path) else _replace(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _upload(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        # The suffix stays the last one: some writers choose their format by it.
        temporary = Path(scratch) / f"file{path.suffix}"
        try:
            yield temporary
        except OSError as error:
            message = f"{temporary}: cannot be written: {_format_reason(error)}"
            raise StorageError(message) from error
        with _translate_write_errors(path):
            # Object stores show a file only when it is complete.
            get_filesystem(path).put_file(str(temporary), cast(Any, path).path)


@contextlib.contextmanager
def _replace(path: Path) -> Iterator[Path]:
    with _translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # `is_temporary_file` knows these names.
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with _translate_write_errors(path):
            # mkstemp makes the file readable by its owner only, unlike other files.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(_DEFAULT_FILE_MODE & ~umask)
            yield temporary
            # So that the file also survives a loss of power.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary_file(path: Path, name: str) -> bool:
    """Return whether a path has the name of a temporary file of `atomic_write`.

    Args:
        path: The path of the possible temporary file.
        name: Name of the file that the temporary one would have replaced.
    """
    final = Path(name)
    pattern = rf"\.{re.escape(final.stem)}-[a-z0-9_]{{8}}{re.escape(final.suffix)}"
    return re.fullmatch(pattern, path.name) is not None


@contextlib.contextmanager
def create_data_file(path: Path) -> Iterator[str]:
    """Yield the local path at which to write a new file; delete it if the block fails.

    For files with unique names, which no reader opens before a commit file names them: unlike
    `atomic_write`, this creates no temporary file on a local disk.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    if not is_local(path):
        with atomic_write(path) as temporary:
            yield str(temporary)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield str(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, in one step.

    Raises:
        StorageError: It cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append to a text file; on filesystems that cannot, by writing the whole file again.

    Raises:
        StorageError: It cannot be written.
    """
    if not is_local(path):
        write_text(path, read_text(path) + text)
        return
    with _translate_write_errors(path), path.open("a", newline="", encoding="utf-8") as file:
        file.write(text)


def touch(path: Path) -> None:
    """Create an empty file if it does not exist.

    Raises:
        StorageError: The folder cannot be written.
    """
    with _translate_write_errors(path):
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to lock a file; yield whether it succeeded.

    It always succeeds on filesystems without locks. The system releases the lock of a process
    that is killed.

    Raises:
        StorageError: The file cannot be opened.
    """
    if not is_local(path):
        yield True
        return
    with _translate_read_errors(path):
        file = path.open("rb")
    with file:
        # Not the package filelock: it deletes the file when it releases the lock, but the
        # in-progress file of an output has to outlive a job that fails.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous owner may have deleted the file, and another job may have made a new one.
            has_lock = os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            has_lock = False
        except OSError as error:
            log.debug("%s: cannot be locked: %s", path, error)
            has_lock = True
        yield has_lock


def copy(source: Path, target: Path) -> None:
    """Copy a local file to any filesystem, in one step.

    Raises:
        StorageError: The target cannot be written.
    """
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def move(source: Path, target: Path) -> None:
    """Move a file within one filesystem, in place of an existing target, in one step.

    Raises:
        StorageError: The target cannot be written.
    """
    with _translate_write_errors(target):
        if is_local(target):
            source.replace(target)
        else:
            get_filesystem(target).mv(cast(Any, source).path, cast(Any, target).path)


def is_abandoned(path: Path) -> bool:
    """Return whether a file that no commit file names may be deleted.

    On filesystems without locks only after a day: until then a running job may have written it.

    Raises:
        StorageError: The filesystem does not answer.
    """
    if is_local(path):
        return True
    with _translate_read_errors(path):
        modified = get_filesystem(path).modified(cast(Any, path).path).timestamp()
        return time.time() - modified > _ABANDONED_AFTER_SECONDS


def remove(path: Path) -> None:
    """Delete a file, if it exists.

    Raises:
        StorageError: It cannot be deleted.
    """
    with _translate_write_errors(path):
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Delete a folder with all its content, if it exists.

    Raises:
        StorageError: It cannot be deleted.
    """
    if not is_folder(path):
        return
    try:
        if is_local(path):
            shutil.rmtree(path)
        else:
            cast(Any, path).rmdir(recursive=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be deleted: {error.strerror or error}") from error


def remove_empty_folder(path: Path) -> None:
    """Delete a local folder if it is empty; object stores have no empty folders."""
    if is_local(path):
        with contextlib.suppress(OSError):
            path.rmdir()
