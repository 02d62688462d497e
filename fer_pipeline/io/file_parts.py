"""Reading of whole input files, members of archives, and parts of text files."""

from __future__ import annotations

import bz2
import contextlib
import gzip
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from fer_pipeline.errors import InputError, UnreadableFileError
from fer_pipeline.io.archives import Archive, open_archive
from fer_pipeline.io.input_reading import describe_read_error, open_input

MAX_CONTENT_BYTES = 256 << 20
"""Size up to which a whole file is read into memory."""


_HEAD_BYTES = 512
_SIGNATURES: dict[str, tuple[int, bytes, str]] = {
    "zip archive": (0, b"PK\x03\x04", "rename it to .zip"),
    "tar archive": (257, b"ustar", "rename it to .tar"),
    "gzip file": (0, b"\x1f\x8b\x08", "rename it to .gz"),
    "bzip2 file": (0, b"BZh", "rename it to .bz2"),
    "file of xz": (0, b"\xfd7zXZ\0", "decompress it"),
    "file of zstd": (0, b"\x28\xb5\x2f\xfd", "decompress it"),
    "text in UTF-16": (0, b"\xff\xfe", "save it in UTF-8"),
    "text in UTF-16, big-endian": (0, b"\xfe\xff", "save it in UTF-8"),
}
"""Offset and first bytes of files that are sometimes named like a CSV file, and what to do."""


class FilePart(NamedTuple):
    """A file, or a part of a CSV file, that one task reads.

    Attributes:
        name: Name of the file, see `input_listing.FILE_SCHEMA`.
        size: Size of the file, in bytes; -1 if unknown.
        problem: Why the file cannot be read; None if nothing is known against it.
        archive: Name of the archive that contains the file; None for other files.
        member: Position of the file in the archive; None for other files.
        start: Start of the part, in bytes.
        end: End of the part, in bytes; None for the end of the file.
    """

    name: str
    size: int
    problem: str | None = None
    archive: str | None = None
    member: int | None = None
    start: int = 0
    end: int | None = None


class Unreadable(NamedTuple):
    """Placeholder for the content of a file that cannot be read.

    Attributes:
        reason: Why the file cannot be read.
    """

    reason: str


FileContent = bytes | Unreadable

_TOO_LARGE = Unreadable(f"larger than {MAX_CONTENT_BYTES >> 20} MB")


class ContentReader:
    """A reader of whole files, which keeps an archive open while its members are read."""

    def __init__(self) -> None:
        """Create a reader that has nothing open."""
        self._archive: tuple[str, Archive] | None = None
        self._stack = contextlib.ExitStack()

    def close(self) -> None:
        """Close the archive that is open, if any."""
        self._archive = None
        self._stack.close()

    def read(self, part: FilePart) -> FileContent:
        """Return the content of a file, or the reason why it cannot be read."""
        if part.problem is not None:
            return Unreadable(part.problem)
        if part.size > MAX_CONTENT_BYTES:
            return _TOO_LARGE
        try:
            with self._open(part) as file:
                # Without a limit no buffer of the size of the limit is allocated.
                content = file.read() if part.size >= 0 else file.read(MAX_CONTENT_BYTES + 1)
        except Exception as error:
            return Unreadable(describe_read_error(error))
        return _TOO_LARGE if len(content) > MAX_CONTENT_BYTES else content

    def _open(self, part: FilePart) -> BinaryIO:
        """Open a file, or the member of an archive."""
        if part.archive is None:
            return open_input(part.name)
        if self._archive is None or self._archive[0] != part.archive:
            self.close()
            self._archive = part.archive, self._stack.enter_context(open_archive(part.archive))
        return self._archive[1].open_member(cast(int, part.member), part.size)


@contextlib.contextmanager
def open_text(part: FilePart) -> Iterator[BinaryIO]:
    """Open a text file, which may be compressed or a member of an archive, as a stream of bytes.

    Raises:
        UnreadableFileError: The file cannot be opened, or an error occurs while it is read.
        InputError: The file is an archive, is compressed, or has another encoding than UTF-8.
    """
    with contextlib.ExitStack() as stack:
        try:
            if part.archive is None:
                file = open_input(part.name)
            else:
                archive = stack.enter_context(open_archive(part.archive))
                file = archive.open_member(cast(int, part.member), part.size)
            text = _decompress(part.name, stack.enter_context(file))
            if part.start == 0:
                _require_text(text, part.name)
            yield text
        except InputError:
            raise
        except Exception as error:  # each filesystem has its own classes
            raise UnreadableFileError(f"{part.name}: {describe_read_error(error)}") from error


def _decompress(name: str, file: BinaryIO) -> BinaryIO:
    """Return a file that is named like a compressed one as a stream of its decompressed content."""
    if name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    return cast(BinaryIO, bz2.BZ2File(file)) if name.lower().endswith(".bz2") else file


def _require_text(file: BinaryIO, name: str) -> None:
    """Check the first bytes of a file that should be a text.

    Raises:
        InputError: The file is an archive, is compressed, or has another encoding than UTF-8.
    """
    if hasattr(file, "peek"):
        head = file.peek(_HEAD_BYTES)
    else:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    for kind, (offset, signature, remedy) in _SIGNATURES.items():
        if head[offset:].startswith(signature):
            raise InputError(f"{name}: is a {kind}; {remedy}")
