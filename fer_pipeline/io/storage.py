"""Reading and writing files on local disks and on other filesystems.

All functions take the path objects that `fer_pipeline.io.paths.parse_path` returns. A file is
written completely or not at all. Some files are data files with unique names, such as the Parquet
files of a dataset. They count only if the commit file, a JSON file that is written last, lists them
(see `fer_pipeline.io.output_folder`).
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
    """Return whether a path exists and is a file.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.is_file() if is_local(path) else _read_type(path) == "file"


def is_folder(path: Path) -> bool:
    """Return whether a path exists and is a folder.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.is_dir() if is_local(path) else _read_type(path) == "directory"


def exists(path: Path) -> bool:
    """Return whether a path exists, as a file or as a folder.

    Raises:
        StorageError: The filesystem does not answer.
    """
    with _translate_read_errors(path):
        return path.exists() if is_local(path) else _read_type(path) is not None


def require_writable(folder: Path) -> None:
    """Check that this user may create files in a local folder, which need not exist yet.

    Folders of other filesystems are not checked.

    Raises:
        StorageError: The folder, or the one in which it would be created, is read-only.
    """
    if not is_local(folder):
        return
    # Unlike Path.exists, this raises no error below a folder that must not be searched.
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110
    if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(f"{folder}: cannot be written: no permission to write to {existing}")


def _read_type(path: Path) -> str | None:
    """Return the type of a remote path: "file", "directory", or None if it does not exist."""
    # Not fsspec's `isfile` and `isdir`: they return False if the server fails.
    try:
        return str(get_filesystem(path).info(cast(Any, path).path)["type"])
    except FileNotFoundError:
        return None


def read_bytes(path: Path) -> bytes:
    """Read the content of a file.

    Raises:
        StorageError: The file does not exist or cannot be read.
    """
    with _translate_read_errors(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Read the content of a text file in UTF-8.

    Raises:
        StorageError: The file does not exist or cannot be read.
    """
    with _translate_read_errors(path):
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def _translate_read_errors(path: Path) -> Iterator[None]:
    """Return a context manager that converts errors of reading `path` to StorageError."""
    with _translate_errors(path, "read"):
        try:
            yield
        except FileNotFoundError:
            raise StorageError(f"{path}: no such file") from None


def _translate_write_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """Return a context manager that converts errors of writing `path` to StorageError."""
    return _translate_errors(path, "written")


@contextlib.contextmanager
def _translate_errors(path: Path, participle: str) -> Iterator[None]:
    """Return a context manager that converts errors of a `with` block to StorageError.

    For a local path, it converts OSError and UnicodeDecodeError; for a remote path, all exceptions.
    The new message begins with "PATH: cannot be PARTICIPLE".

    Args:
        path: Path of the file or folder that the block reads or writes.
        participle: "read" or "written".
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # Remote filesystems raise their own error classes. On a local disk, an error of any other
        # class than these two is a bug in this package.
        if is_local(path) and not isinstance(error, OSError | UnicodeDecodeError):
            raise
        raise StorageError(f"{path}: cannot be {participle}: {_format_reason(error)}") from error


def _format_reason(error: Exception) -> str:
    """Return an error's message on one line; errno and path of an OSError are left out."""
    reason = error.strerror if isinstance(error, OSError) else None
    return one_line(reason or error or type(error).__name__)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary local file, which replaces `path` when the `with` block ends.

    Readers see the old file or the complete new file. If the block raises, `path` is unchanged and
    the temporary file is deleted.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    write_file = _replace_local_file if is_local(path) else _upload_remote_file
    with write_file(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _upload_remote_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary local file, and upload the written file to `path`."""
    with tempfile.TemporaryDirectory() as scratch_folder:
        # Some writers choose their format by the suffix, so it is kept.
        temporary = Path(scratch_folder) / f"file{path.suffix}"
        try:
            yield temporary
        except OSError as error:
            message = f"{temporary}: cannot be written: {_format_reason(error)}"
            raise StorageError(message) from error
        with _translate_write_errors(path):
            # In object stores a file becomes visible only when it is complete.
            get_filesystem(path).put_file(str(temporary), cast(Any, path).path)


@contextlib.contextmanager
def _replace_local_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file in the folder of `path`, and finally rename it to `path`.

    An existing file is replaced. Missing folders are created. If the body of the `with` statement
    raises, the temporary file is deleted and nothing is replaced.
    """
    with _translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # `is_temporary_file` recognises these names.
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(descriptor)
    temporary = Path(name)
    try:
        with _translate_write_errors(path):
            # mkstemp creates a file that only its owner can read. Give it the usual permissions.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(_DEFAULT_FILE_MODE & ~umask)
            yield temporary
            # Flush the file to the disk, so that it survives a loss of power.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary_file(path: Path, name: str) -> bool:
    """Return whether a path has the name of a temporary file of `atomic_write`.

    Args:
        path: Path to check.
        name: Name of the final file, which the temporary file replaces.
    """
    final_path = Path(name)
    pattern = rf"\.{re.escape(final_path.stem)}-[a-z0-9_]{{8}}{re.escape(final_path.suffix)}"
    return re.fullmatch(pattern, path.name) is not None


@contextlib.contextmanager
def create_data_file(path: Path) -> Iterator[str]:
    """Yield the local path to which the caller writes a new data file.

    The file is deleted if the body of the `with` statement raises. On a local disk, readers can see
    the unfinished file. Therefore use this only for files that readers ignore until another file
    lists them, such as the Parquet files that `manifest.json` lists.

    Args:
        path: Path of the file. If it is remote, a temporary file is written and then uploaded.

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
    """Write or replace a text file in UTF-8; readers see the old or the complete new file.

    Raises:
        StorageError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_text(path: Path, text: str) -> None:
    """Append text to an existing text file in UTF-8.

    Object stores cannot append, so on a remote filesystem the complete file is written again.

    Raises:
        StorageError: The file cannot be written.
    """
    if not is_local(path):
        write_text(path, read_text(path) + text)
        return
    with _translate_write_errors(path), path.open("a", newline="", encoding="utf-8") as file:
        file.write(text)


def touch(path: Path) -> None:
    """Create an empty file, and its folder, if the file does not exist.

    Raises:
        StorageError: The folder cannot be written.
    """
    with _translate_write_errors(path):
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to lock an existing file while the body of the `with` statement runs.

    The operating system releases the lock if the process is killed.

    Yields:
        False if another process holds the lock or has just deleted the file, otherwise True. On a
        filesystem without locks, always True.

    Raises:
        StorageError: The file cannot be opened.
    """
    if not is_local(path):
        yield True
        return
    with _translate_read_errors(path):
        file = path.open("rb")
    with file:
        # The package filelock would delete the file when it releases the lock. But the in-progress
        # file of an output has to remain if the job fails.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held the lock before may have deleted the file, and a third process
            # may have created and locked a new one.
            has_lock = os.fstat(file.fileno()).st_nlink > 0
        except BlockingIOError:
            has_lock = False
        except OSError as error:
            log.debug("%s: cannot be locked: %s", path, error)
            has_lock = True
        yield has_lock


def copy(source: Path, target: Path) -> None:
    """Copy a local file to a target on any filesystem, and replace an existing target.

    Readers see the old or the complete new target.

    Raises:
        StorageError: The target cannot be written.
    """
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def move(source: Path, target: Path) -> None:
    """Move a file within one filesystem; an existing target is replaced.

    Raises:
        StorageError: The target cannot be written.
    """
    with _translate_write_errors(target):
        if is_local(target):
            source.replace(target)
        else:
            get_filesystem(target).mv(cast(Any, source).path, cast(Any, target).path)


def is_abandoned(path: Path) -> bool:
    """Return whether a data file may be deleted because no running job is writing it.

    A local file may always be deleted, because the caller has locked the output folder. Remote
    filesystems have no locks: a remote file may be deleted if its last change was more than 24
    hours ago.

    Args:
        path: Path of a data file that no finished output lists.

    Raises:
        StorageError: The filesystem does not answer.
    """
    if is_local(path):
        return True
    with _translate_read_errors(path):
        modified_seconds = get_filesystem(path).modified(cast(Any, path).path).timestamp()
        return time.time() - modified_seconds > _ABANDONED_AFTER_SECONDS


def remove(path: Path) -> None:
    """Delete a file, if it exists.

    Raises:
        StorageError: The file cannot be deleted.
    """
    with _translate_write_errors(path):
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Delete a folder with all its content, if it exists.

    Raises:
        StorageError: The folder cannot be deleted.
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
    """Delete a local folder if it exists and is empty.

    No error is raised if it cannot be deleted. Remote folders are left alone, because object stores
    have no empty folders.
    """
    if is_local(path):
        with contextlib.suppress(OSError):
            path.rmdir()
