"""Texts for messages and terminals: one-line errors, suggestions and tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def one_line(message: object) -> str:
    """Return a message with each run of white space, line breaks included, as one space."""
    return " ".join(str(message).split())


def did_you_mean(name: str, known_names: Iterable[str]) -> str:
    """Return a hint at the known name that is nearest to a misspelt one.

    Args:
        name: Name that is not known.
        known_names: All names that would have been accepted.

    Returns:
        "did you mean NAME?", or the list of all known names if none is near.
    """
    names = list(known_names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"


def format_table(
    rows: Sequence[Sequence[str]], header: Sequence[str] | None, alignment: Sequence[str]
) -> str:
    """Return rows as a text table: aligned columns with two spaces between them, and no lines.

    Args:
        rows: Cells of each row, already formatted.
        header: Title of each column; None for a table without a header.
        alignment: "left" or "right" for each column.
    """
    # The header is passed as a row because tabulate widens the columns of its own headers.
    return tabulate(
        rows if header is None else [header, *rows],
        tablefmt="plain",
        colalign=alignment,
        disable_numparse=True,
    )
