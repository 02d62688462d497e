"""Reading of the members of zip and tar archives, without unpacking them."""

from __future__ import annotations

import contextlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.io.file_names import decode_file_name
from fer_pipeline.io.input_reading import open_input
from fer_pipeline.text import one_line

_ARCHIVE_NAME = re.compile(r"(?i)\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$")
_UNCOMPRESSED_TAR_NAME = re.compile(r"(?i)\.tar$")
_ARCHIVE_URL = re.compile(r"^(?:zip|tar)://(?P<pattern>.*?)::(?P<archive>.+)$")
_ENCRYPTED = 0x1  # bit of ZipInfo.flag_bits

ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError)
"""Exceptions that Python raises for a damaged archive."""


class ArchiveMember(NamedTuple):
    """A member of an archive.

    Attributes:
        name: Path in the archive.
        size: Uncompressed size, in bytes.
        position: Where the member is, for `Archive.open_member`.
        problem: Why the member cannot be read; None if it can.
    """

    name: str
    size: int
    position: int
    problem: str | None = None


class Archive(Protocol):
    """An open archive."""

    def list_members(self) -> Iterator[ArchiveMember]:
        """Yield the members that are not folders, in the order of the archive."""

    def open_member(self, position: int, size: int) -> BinaryIO:
        """Open a member for reading; position and size are those of its `ArchiveMember`."""


def is_archive_name(name: str) -> bool:
    """Return whether a file is named like an archive whose members are read."""
    return bool(_ARCHIVE_NAME.search(name))


def is_seekable_archive_name(name: str) -> bool:
    """Return whether the members of the archive can be read in any order, at the same cost."""
    return name.lower().endswith((".zip", ".tar"))


def split_archive_url(url: str) -> tuple[str, str] | None:
    """Split a URL such as `zip://train/*.png::faces.zip` into the archive and the pattern.

    Returns:
        Path or URL of the archive, and the pattern of the members, which may be empty; None if the
        URL is not of this form.
    """
    match = _ARCHIVE_URL.match(url)
    return (match["archive"], match["pattern"]) if match else None


@contextlib.contextmanager
def open_archive(name: str) -> Iterator[Archive]:
    """Open an archive for reading.

    Args:
        name: Absolute path, as `decode_file_name` returns it, or URL.

    Raises:
        UnreadableFileError: The archive cannot be opened, or an error occurs while it is read.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_input(name))
            if name.lower().endswith(".zip"):
                yield _ZipArchive(stack.enter_context(zipfile.ZipFile(file)))
            else:
                # Names that are not UTF-8 keep their bytes.
                yield _TarArchive(
                    stack.enter_context(
                        tarfile.open(fileobj=file, encoding="utf-8", errors="surrogateescape")
                    )
                )
        except ARCHIVE_ERRORS as error:
            raise UnreadableFileError(f"{name}: a damaged archive ({one_line(error)})") from error


class _ZipArchive:
    """A zip archive; the position of a member is its index in the directory."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def list_members(self) -> Iterator[ArchiveMember]:
        for position, entry in enumerate(self._archive.infolist()):
            if not entry.is_dir():
                problem = "encrypted" if entry.flag_bits & _ENCRYPTED else None
                yield ArchiveMember(entry.filename, entry.file_size, position, problem)

    def open_member(self, position: int, size: int) -> BinaryIO:
        return cast(BinaryIO, self._archive.open(self._archive.infolist()[position]))


class _TarArchive:
    """A tar archive, compressed or not; the position of a member is that of its first byte."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def list_members(self) -> Iterator[ArchiveMember]:
        for entry in self._archive:
            if not entry.isdir():
                name = decode_file_name(entry.name.encode("utf-8", "surrogateescape"))
                is_file = entry.isreg() and not entry.issparse()
                problem = None if is_file else "a link, device or sparse file in an archive"
                yield ArchiveMember(name, entry.size if is_file else 0, entry.offset_data, problem)
            # Otherwise an archive of a million members fills the memory.
            cast(Any, self._archive).members.clear()

    def open_member(self, position: int, size: int) -> BinaryIO:
        entry = tarfile.TarInfo()
        entry.offset_data, entry.size = position, size
        return cast(BinaryIO, self._archive.extractfile(entry))
