"""Messages of the decoders of images, which report damage only on stderr.

libjpeg, libpng and libtiff decode a damaged file as far as they can, and OpenCV passes on the
pixels without a word about their warnings.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO, cast

import cv2

_MAX_BYTES = 1 << 20
_PREFIX = re.compile(r"^\[ ?\w+:\d+@[\d.]+\] global \S+ (TIFF_(?=Error|Warning)|\S+ )?")
"""Start of a message in OpenCV's log, such as `[ WARN:0@0.8] global grfmt_tiff.cpp:80 `."""

_HARMLESS = re.compile(
    # Chunks of PNG files that do not change the grey values; the names of these are in lower case.
    r"libpng warning: ([a-z]\w{3}: |PLTE: ignored)"
    # Tags of TIFF files; messages about pixels name the decoder, the strip or the tile.
    r"|Warning (?!.*(Decode|JPEGLib|[Ss]trip|[Tt]ile|[Ss]canline))"
    # Stated for all images of 32 bits per pixel, which are then read in another way.
    r"|.*TIFFRGBAImageOK"
    # Written by phones; the pixels are whole.
    r"|Invalid SOS parameters for sequential JPEG"
    # Code streams of JPEG 2000 without a container.
    r"|.*unknown or unspecified color space"
)


class Messages:
    """Text that was written to stderr while `capture_messages` was active."""

    def __init__(self, file_descriptor: int) -> None:
        """Read from a file that stands in for stderr."""
        self._file_descriptor = file_descriptor

    def read(self) -> str:
        """Return the lines written so far, at most 1 MB."""
        # Files of a batch are decoded one after the other, and hardly any of them has messages.
        if not os.fstat(self._file_descriptor).st_size:
            return ""
        text = os.pread(self._file_descriptor, _MAX_BYTES, 0)
        if len(text) == _MAX_BYTES:
            text = text[: text.rindex(b"\n")]
        return text.decode("utf-8", "replace")


@contextlib.contextmanager
def capture_messages() -> Iterator[Messages]:
    """Redirect stderr, also that of C code, to a temporary file.

    Stderr belongs to the whole process: other threads must not write to it meanwhile. The pixels of
    input files are therefore decoded in a process of their own, see `decoder_process`.
    """
    file_descriptor = _open_file(os.getpid()).fileno()
    if os.fstat(file_descriptor).st_size:
        os.ftruncate(file_descriptor, 0)
        os.lseek(file_descriptor, 0, os.SEEK_SET)
    stderr = os.dup(2)
    try:
        os.dup2(file_descriptor, 2)
        yield Messages(file_descriptor)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@cache
def _open_file(_process_id: int) -> BinaryIO:
    """Open the temporary file of this process, and let OpenCV write its warnings to stderr."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    return cast(BinaryIO, tempfile.TemporaryFile(buffering=0))


def find_damage(messages: str) -> str:
    """Return the first message that reports damage of an image; an empty string if none does."""
    for line in messages.splitlines():
        message = _PREFIX.sub("", line.strip())
        if message and not _HARMLESS.match(message):
            return message
    return ""
