"""The one module that knows filesystems.

A path is a local path, a `file:` URL, or a URL of any filesystem that fsspec knows, such as
`s3://bucket/key`. Whatever is written here appears whole or not at all.
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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ValidationError

from fer_pipeline.errors import DatasetError, RunError, StorageError

log = logging.getLogger(__name__)

Description = TypeVar("Description", bound=BaseModel)

_DAY = 24 * 60 * 60.0
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


def path(text: str | Path) -> Path:
    """The path behind a path or a URL.

    Args:
        text: What a user names.

    Returns:
        A `pathlib.Path` where it is local; for any other filesystem a `UPath`, which has the same
        methods.

    Raises:
        StorageError: There is no such filesystem, or the package for it is missing.
    """
    if not isinstance(text, str | Path):
        return text
    named = str(text)
    if not _URL.match(named) or urlparse(named).scheme == "file":
        return local_path(named)
    # Nobody who stays on this machine needs it.
    from upath import UPath

    scheme = urlparse(named).scheme
    try:
        # Other processes write there too: what is listed once is not what is there later.
        found = UPath(named, use_listings_cache=False)
        filesystem(cast(Path, found))
        return cast(Path, found)
    except ImportError as error:
        extra = "; pip install 'fer_pipeline[s3]'" if scheme in ("s3", "s3a") else ""
        raise StorageError(f"{named}: {scheme}: needs a package: {error}{extra}") from error
    except (ValueError, OSError) as error:
        raise StorageError(f"{named}: cannot be reached: {error}") from error


def is_local(path: Path) -> bool:
    """Whether what `path` gave is a path of this machine."""
    return isinstance(path, Path)


def local_path(text: str | Path) -> Path:
    """The local path behind a path or a `file:` URL.

    Raises:
        StorageError: It is a URL of another scheme.
    """
    text = str(text)
    if not _URL.match(text):
        return Path(text).expanduser()
    url = urlparse(text)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise StorageError(f"{text}: expected a local path or a file: URL")
    # In a path, "?" and "#" are letters like any other.
    tail = text.partition(url.path)[2] if url.path else ""
    return Path(unquote(url.path + tail))


def filesystem(path: Path) -> Any:
    """The fsspec filesystem of a path that is not local."""
    return cast(Any, path).fs


def spark_url(path: Path) -> str:
    """What Spark, which decodes nothing in a path's text, reads a path by."""
    if is_local(path):
        # as_uri would quote the "=".
        return f"file:{path.absolute()}"
    return re.sub(r"^s3:", "s3a:", str(path))


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        StorageError: Its filesystem cannot be asked.
    """
    with _reading(path):
        return path.is_file() if is_local(path) else _type(path) == "file"


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        StorageError: Its filesystem cannot be asked.
    """
    with _reading(path):
        return path.is_dir() if is_local(path) else _type(path) == "directory"


def exists(path: Path) -> bool:
    """Whether there is a file or a folder.

    Raises:
        StorageError: Its filesystem cannot be asked.
    """
    with _reading(path):
        return path.exists() if is_local(path) else _type(path) is not None


def _type(path: Path) -> str | None:
    """What there is. fsspec's own `isfile` says that there is nothing where a server fails."""
    try:
        return str(filesystem(path).info(cast(Any, path).path)["type"])
    except FileNotFoundError:
        return None


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
        StorageError: It is not there or cannot be read.
    """
    with _reading(path):
        return path.read_bytes()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    with _in_our_words(path, "read"):
        try:
            yield
        except FileNotFoundError:
            raise StorageError(f"{path}: no such file") from None


def _writing(path: Path) -> contextlib.AbstractContextManager[None]:
    return _in_our_words(path, "written")


@contextlib.contextmanager
def _in_our_words(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # Other filesystems have errors of their own; on a disk, another one is a mistake of ours.
        if is_local(path) and not isinstance(error, OSError | UnicodeDecodeError):
            raise
        raise StorageError(f"{path}: cannot be {done}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    told = error.strerror if isinstance(error, OSError) else None
    return " ".join(str(told or error or type(error).__name__).split())


def temporary_pattern(name: str) -> re.Pattern[str]:
    """What the temporary file of a file of this name is called, see `replacing`."""
    path = Path(name)
    return re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}{re.escape(path.suffix)}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary, local path whose file takes the place of `path` when the block ends well.

    Raises:
        StorageError: The folder cannot be written, the disk is full, ...
    """
    with _uploaded(path) if not is_local(path) else _replaced(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _uploaded(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        # The suffix stays last: some writers choose their format by it.
        temporary = Path(scratch) / f"file{path.suffix}"
        try:
            yield temporary
        except OSError as error:
            raise StorageError(f"{temporary}: cannot be written: {_reason(error)}") from error
        with _writing(path):
            # Object stores show a file when all of it is there.
            filesystem(path).put_file(str(temporary), cast(Any, path).path)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with _writing(path):
            # mkstemp makes it readable by its owner alone, unlike every other file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            yield temporary
            # What stands at the path survives a loss of power, too.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def touch(path: Path) -> None:
    """Makes an empty file where there is none.

    Raises:
        StorageError: The folder cannot be written.
    """
    with _writing(path):
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether a file is this process's alone within; where there are no locks it always is.

    Raises:
        StorageError: It cannot be opened.
    """
    if not is_local(path):
        yield True
        return
    with _reading(path):
        file = path.open("rb")
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


def append_text(path: Path, text: str) -> None:
    """Adds to a text file: elsewhere than on a disk, by writing all of it again.

    Raises:
        StorageError: It cannot be written.
    """
    if not is_local(path):
        write_text(path, read_text(path) + text)
        return
    with _writing(path), path.open("a", newline="", encoding="utf-8") as file:
        file.write(text)


def copy(source: Path, target: Path) -> None:
    """Copies a local file to anywhere, in one step.

    Raises:
        StorageError: The place cannot be written.
    """
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def move(source: Path, target: Path) -> None:
    """Puts a file in the place of another on the same filesystem, in one step.

    Raises:
        StorageError: The place cannot be written.
    """
    with _writing(target):
        if is_local(target):
            source.replace(target)
        else:
            filesystem(target).mv(cast(Any, source).path, cast(Any, target).path)


def is_abandoned(path: Path) -> bool:
    """Whether a file that no mark names is nobody's: where there are no locks, after a day.

    Until then another job may be writing there that has not named it yet.

    Raises:
        StorageError: Its filesystem cannot be asked.
    """
    if is_local(path):
        return True
    with _reading(path):
        return time.time() - filesystem(path).modified(cast(Any, path).path).timestamp() > _DAY


def remove(path: Path) -> None:
    """Deletes a file, if it is there.

    Raises:
        StorageError: It cannot be deleted.
    """
    with _writing(path):
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder with all that it holds, if it is there.

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
    """Deletes a folder that holds nothing; where there are no folders, there is none."""
    if is_local(path):
        with contextlib.suppress(OSError):
            path.rmdir()


@dataclass(frozen=True)
class FileFormat:
    """The format of a JSON file that describes its folder.

    Attributes:
        version: Version of the format that this version of the package reads and writes.
        error: Class of the error that is raised if the file has another format or is invalid.
        invalid: Predicate of the error message for an invalid file, such as `is damaged`.
        upgrade: What to do about a folder in an older format; `{folder}` in it is replaced.
    """

    version: int
    error: type[DatasetError] | type[RunError]
    invalid: str
    upgrade: str

    def require_version(self, folder: Path, version: int) -> None:
        """Check that a folder has this version of the format.

        Raises:
            DatasetError: The dataset was written in an older or a newer format.
            RunError: The run was written in an older or a newer format.
        """
        if version == self.version:
            return
        if version > self.version:
            remedy = "update fer_pipeline"
        else:
            remedy = self.upgrade.format(folder=folder)
        raise self.error(
            f"{folder}: has format {version}, this version of fer_pipeline reads format"
            f" {self.version}; {remedy}"
        )


def read_described(path: Path, kind: type[Description], file_format: FileFormat) -> Description:
    """Read the JSON file that describes its folder.

    Args:
        path: Path of the file.
        kind: Class of the description.
        file_format: Format of the file.

    Raises:
        DatasetError: The dataset's file is invalid, or has another format.
        RunError: The run's file is invalid, or has another format.
        StorageError: The file cannot be read.
    """
    text = read_text(path)
    version = _format_version(text)
    if version is not None:
        file_format.require_version(path.parent, version)
    try:
        return kind.model_validate_json(text)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise file_format.error(
            f"{path}: {file_format.invalid}: {key}: {first['msg']}"
        ) from invalid


def _format_version(text: str) -> int | None:
    """Return the format version that a JSON text states, or None if it states none."""
    try:
        version = json.loads(text).get("format_version")
    except (ValueError, AttributeError):
        return None
    return version if isinstance(version, int) else None


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        StorageError: It is not there or cannot be read.
    """
    with _reading(path):
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def parquet_file(path: Path) -> Iterator[str]:
    """Where a Parquet writer writes a file that does not matter before a manifest names it.

    Raises:
        StorageError: The folder cannot be written, the disk is full, ...
    """
    if not is_local(path):
        with replacing(path) as temporary:
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
