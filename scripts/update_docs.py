"""Update the generated tables in `docs`: configuration keys, and the options of each job.

`scripts/update-docs` runs this module. A test checks that the tables are up to date.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fer_pipeline import console
from fer_pipeline.config.reference import format_key_tables

DOCS = Path(__file__).resolve().parents[1] / "docs"

_TABLE_HEADER = ("| option | meaning |", "|---|---|")


class GeneratedText(NamedTuple):
    """Generated part of a document, between two comments `MARKER: begin` and `MARKER: end`.

    Attributes:
        path: Path of the document.
        marker: Name of the part in the comments.
        text: Current content of the part.
    """

    path: Path
    marker: str
    text: str


def list_generated_texts() -> list[GeneratedText]:
    """Return all generated parts of the documents."""
    option_tables = [
        GeneratedText(DOCS / "jobs" / f"{job}.md", "options", format_options(make_parser(job)))
        for job in console.describe_jobs()
    ]
    configuration = DOCS / "configuration.md"
    return [GeneratedText(configuration, "configuration", format_key_tables()), *option_tables]


def make_parser(job: str) -> argparse.ArgumentParser:
    """Return the parser of the options of a job."""
    parser: argparse.ArgumentParser = importlib.import_module(
        f"fer_pipeline.jobs.{job}"
    ).make_parser()
    return parser


def format_options(parser: argparse.ArgumentParser) -> str:
    """Return the options of a parser as a Markdown table, without `--help` and hidden options.

    The options of every job, which argparse lists first, are at the end.
    """
    common_group, *groups = parser._action_groups[2:]
    own_groups = [*parser._action_groups[:2], *groups]
    rows = [
        f"| `{_format_name(action)}` | {_format_meaning(action)} |"
        for group in (*own_groups, common_group)
        for action in _iterate_visible_actions(group)
    ]
    return "\n".join([*_TABLE_HEADER, *rows])


def _iterate_visible_actions(group: argparse._ArgumentGroup) -> Iterator[argparse.Action]:
    """Yield the options of a group that the documents list."""
    for action in group._group_actions:
        if action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
            yield action


def _format_name(action: argparse.Action) -> str:
    """Return an option with its value, such as `--input PATH [PATH ...]`."""
    metavar = str(action.metavar or action.dest.upper())
    match action.nargs:
        case 0:
            values = []
        case "+":
            values = [f"{metavar} [{metavar} ...]"]
        case _:
            values = [metavar]
    return " ".join([*action.option_strings, *values])


def _format_meaning(action: argparse.Action) -> str:
    """Return the help text of an option, its allowed values, and whether it is required."""
    parts = [(action.help or "") % vars(action)]
    if action.choices is not None:
        parts.append("one of " + ", ".join(f"`{choice}`" for choice in action.choices))
    if action.required:
        parts.append("required")
    return "; ".join(parts).replace("|", "\\|")


def replace_generated_text(document: str, marker: str, text: str) -> str:
    """Return a document with new content between the two comments of a marker.

    Raises:
        ValueError: The document does not contain the two comments exactly once.
    """
    begin, end = f"<!-- {marker}: begin -->\n", f"\n<!-- {marker}: end -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"expected {begin.strip()} and {end.strip()} once")
    before, _, remainder = document.partition(begin)
    _, _, after = remainder.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    """Update all documents."""
    for path, marker, text in list_generated_texts():
        document = path.read_text(encoding="utf-8")
        path.write_text(replace_generated_text(document, marker, text), encoding="utf-8")


if __name__ == "__main__":
    main()
