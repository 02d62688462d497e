"""Lines of a part of a text file, for files that several tasks read together.

A line ends with a line feed, a carriage return, or both, as in Python's universal newlines. The
parts of a file are cut anywhere; a line belongs to the part that contains its first byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_LINE_BYTES = 64 << 20
"""Length up to which a line is read. Of a longer one, such as a binary file, the start is read."""

_KEPT_OF_LONG_LINE = 1 << 16
_CHUNK_BYTES = 4 << 20
_SEARCH_BYTES = 1 << 16


def find_line_start(file: BinaryIO, position: int) -> int:
    """Return the position of the first line that begins at a position or after it, in bytes.

    The result is the size of the file if no line begins there.
    """
    if position <= 0:
        return 0
    file.seek(position - 1)
    start = position - 1
    after_return = False
    while chunk := file.read(_SEARCH_BYTES):
        if after_return:
            return start + (chunk[0] == ord("\n"))
        feed, carriage = chunk.find(b"\n"), chunk.find(b"\r")
        if feed >= 0 and (carriage < 0 or feed <= carriage + 1):
            return start + feed + 1
        if 0 <= carriage < len(chunk) - 1:
            return start + carriage + 1
        start += len(chunk)
        after_return = carriage >= 0
    return start


def iterate_lines(
    file: BinaryIO, start: int = 0, end: int | None = None, chunk_bytes: int = _CHUNK_BYTES
) -> Iterator[list[bytes]]:
    """Yield the lines that begin in a part of a file, without their ends, in lists.

    Args:
        file: File in binary mode. It need not be seekable if the part is the whole file.
        start: Start of the part, in bytes.
        end: End of the part; None for the end of the file.
        chunk_bytes: Number of bytes to read at a time.
    """
    size = None
    if start or end is not None:
        first = find_line_start(file, start)
        size = None if end is None else find_line_start(file, end) - first
        file.seek(first)
    unfinished = b""
    is_in_long_line = False
    for chunk in _iterate_chunks(file, size, chunk_bytes):
        text = unfinished + chunk
        # A carriage return at the end may be followed by a line feed.
        cut = text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, len(text) - 1) + 1
        lines, unfinished = text[:cut].splitlines(), text[cut:]
        if is_in_long_line:
            is_in_long_line, lines = not cut, lines[1:]
        if is_in_long_line:
            unfinished = unfinished[-1:]
        elif len(unfinished) > MAX_LINE_BYTES:
            is_in_long_line = True
            lines.append(unfinished[:_KEPT_OF_LONG_LINE])
            unfinished = unfinished[-1:]
        if lines:
            yield lines
    if unfinished and not is_in_long_line:
        yield unfinished.splitlines()


def _iterate_chunks(file: BinaryIO, size: int | None, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the next bytes of a file in chunks.

    Args:
        file: File in binary mode.
        size: Number of bytes; None for all up to the end of the file.
        chunk_bytes: Maximum number of bytes in a chunk.
    """
    remaining = size
    while remaining is None or remaining > 0:
        byte_count = chunk_bytes if remaining is None else min(chunk_bytes, remaining)
        chunk, error = _read_chunk(file, byte_count)
        if chunk:
            yield chunk
        if error is not None:
            raise error
        if not chunk:
            return
        if remaining is not None:
            remaining -= len(chunk)


def _read_chunk(file: BinaryIO, byte_count: int) -> tuple[bytes, Exception | None]:
    """Read bytes until there are enough, or the file ends.

    Returns:
        The bytes, and the error that occurred after them, as in a damaged compressed file.
    """
    # `read` would lose the bytes before the error.
    read = getattr(file, "read1", file.read)
    pieces: list[bytes] = []
    try:
        while byte_count > 0 and (piece := read(byte_count)):
            pieces.append(piece)
            byte_count -= len(piece)
    except Exception as error:  # each filesystem has its own classes
        return b"".join(pieces), error
    return b"".join(pieces), None
