"""Formatting of texts for messages and terminals: lines, suggestions and tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def one_line(message: object) -> str:
    """Return a message as one line: each sequence of white space becomes one space.

    Args:
        message: Text, or an object such as an exception, which is converted by `str`.
    """
    return escape_unprintable(" ".join(str(message).split()))


def escape_unprintable(text: str) -> str:
    r"""Return a text without control characters, which a file name may contain.

    They are written as in Python, such as `\x1b`. Line feeds remain. A byte of a name that is not
    valid UTF-8 is written as by `file_names.decode_file_name`.
    """
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    """Return the escape sequence of a character."""
    # Python's surrogate for a byte that is not valid.
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def suggest_name(name: str, known_names: Iterable[str]) -> str:
    """Return a suggestion for a misspelt name, as the last part of an error message.

    Args:
        name: The unknown name.
        known_names: All names that are accepted.

    Returns:
        "did you mean NAME?" with the most similar known name, or "expected one of NAME, NAME, ..."
        with all known names if none is similar.
    """
    names = list(known_names)
    similar_name = find_similar_name(name, names)
    return (
        f"did you mean {similar_name}?" if similar_name else f"expected one of {', '.join(names)}"
    )


def find_similar_name(name: str, known_names: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a misspelt name; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(known_names), n=1)), None)


def format_table(
    rows: Sequence[Sequence[str]], header: Sequence[str] | None, alignment: Sequence[str]
) -> str:
    """Return a table as text: aligned columns that are separated by two spaces.

    Args:
        rows: Formatted cells of each row.
        header: Title of each column; None for a table without a header.
        alignment: "left" or "right" for each column.
    """
    # The header is passed as a row, because tabulate would add two spaces to real headers.
    return tabulate(
        rows if header is None else [header, *rows],
        tablefmt="plain",
        colalign=alignment,
        disable_numparse=True,
    )
