r"""Names of files as text, whatever bytes they consist of.

On Linux a file name is a sequence of bytes, which need not be valid UTF-8: a zip archive from
Windows often unpacks to names in another encoding. This package stores and prints names as text in
UTF-8. A byte that is not valid is written as `\x84`, so the name can be converted back. Python's
own conversion (`os.fsdecode`) depends on the locale of the process; this one does not.
"""

from __future__ import annotations

import re

_ESCAPED_BYTE = re.compile(rb"\\x[0-9a-f]{2}")


def decode_file_name(name: bytes) -> str:
    r"""Return a file name or path as text.

    Args:
        name: The bytes of the name. Those that are not valid UTF-8 are written as `\x84`. If the
            name itself contains such a text, its backslash is written as `\x5c`.
    """
    unambiguous = _ESCAPED_BYTE.sub(lambda match: rb"\x5c" + match[0][1:], name)
    return unambiguous.decode("utf-8", "backslashreplace")


def encode_file_name(text: str) -> bytes:
    """Return the bytes of a file name or path that `decode_file_name` converted to text."""
    return _ESCAPED_BYTE.sub(lambda match: bytes.fromhex(match[0][2:].decode()), text.encode())
