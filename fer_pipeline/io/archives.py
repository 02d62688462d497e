"""Reading of the members of zip and tar archives, without unpacking them."""

from __future__ import annotations

import contextlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol, Self, cast

from fer_pipeline.errors import UnreadableFileError
from fer_pipeline.io.file_names import decode_file_name
from fer_pipeline.io.input_reading import describe_read_error, open_input
from fer_pipeline.text import one_line

_ARCHIVE_NAME = re.compile(r"(?i)\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$")
_ARCHIVE_URL = re.compile(r"^(?:zip|tar)://(?P<pattern>.*?)::(?P<archive>.+)$")
# Bits of ZipInfo.flag_bits.
_ENCRYPTED = 0x1
_UTF_8 = 0x800

_PADDING_BYTES = 1 << 16
_END_MARKER: type[Exception] = cast(Any, tarfile).EOFHeaderError

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
                yield _TarArchive(stack.enter_context(_open_tar(file)))
        except ARCHIVE_ERRORS as error:
            if isinstance(error, OSError) and (
                error.strerror or isinstance(error, FileNotFoundError)
            ):
                raise UnreadableFileError(f"{name}: {describe_read_error(error)}") from error
            raise UnreadableFileError(f"{name}: a damaged archive ({one_line(error)})") from error


def _open_tar(file: BinaryIO) -> tarfile.TarFile:
    """Open a tar archive, compressed or not.

    Raises:
        tarfile.ReadError: The file is not a tar archive.
    """
    try:
        # Names that are not UTF-8 keep their bytes.
        return tarfile.open(
            fileobj=file, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape"
        )
    except tarfile.ReadError as error:
        # Python's message lists what each of its decompressors says.
        raise tarfile.ReadError("it is not a tar archive") from error


class _StrictTarInfo(tarfile.TarInfo):
    """The header of a member, which must be whole.

    For `tarfile`, an archive ends where it is damaged or truncated between two members.
    """

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            tarfile.ReadError: The header is damaged, or the archive ends without its end marker.
            tarfile.HeaderError: The end marker was read.
        """
        try:
            return super().fromtarfile(archive)
        except _END_MARKER:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"truncated or damaged at byte {archive.offset}: {error}"
            ) from error


class _ZipArchive:
    """A zip archive; the position of a member is its index in the directory."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def list_members(self) -> Iterator[ArchiveMember]:
        for position, entry in enumerate(self._archive.infolist()):
            if not entry.is_dir():
                problem = "encrypted" if entry.flag_bits & _ENCRYPTED else None
                yield ArchiveMember(_get_zip_name(entry), entry.file_size, position, problem)

    def open_member(self, position: int, size: int) -> BinaryIO:
        return cast(BinaryIO, self._archive.open(self._archive.infolist()[position]))


def _get_zip_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of a member of a zip archive.

    Some programs, such as those of macOS, write names in UTF-8 without marking them. Python reads
    these in the encoding of DOS.
    """
    if entry.flag_bits & _UTF_8:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


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
        self._require_end()

    def open_member(self, position: int, size: int) -> BinaryIO:
        entry = tarfile.TarInfo()
        entry.offset_data, entry.size = position, size
        return cast(BinaryIO, self._archive.extractfile(entry))

    def _require_end(self) -> None:
        """Check that only padding follows the end marker, and the checksum of a compressed file.

        Raises:
            tarfile.ReadError: There is more, such as a second archive.
        """
        file = cast(BinaryIO, self._archive.fileobj)
        while padding := file.read(_PADDING_BYTES):
            if padding.strip(b"\0"):
                raise tarfile.ReadError("more follows its end, such as a second archive")
