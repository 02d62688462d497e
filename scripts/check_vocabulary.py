"""Check that names and docstrings use ordinary technical vocabulary.

    python scripts/check_vocabulary.py FOLDER...

Prints `FILE:LINE: NAME: ADVICE` for each offence; the exit status is 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILLER_NAMES = re.compile(
    "about|asked|chosen|data|done|drawn|every|found|given|here|info|item|kept|known|made|obj|one"
    "|other|res|rest|result|said|shown|taken|there|tmp|told|value|wanted|what|why"
)
"""Names of variables and parameters that say nothing about what they hold."""

PARTICIPLES = re.compile(
    "begun|chosen|done|drawn|found|given|gone|held|kept|known|left|lost|made|met|said|shown|sought"
    "|taken|taught|thought|told|tried|(?!(embed|feed|need|seed|shed|speed|.*ceed)$)[a-z]+ed"
)
"""Names that are no imperative verb. Verbs that end like a participle are excepted."""

OPENINGS = re.compile(
    "(as|by|for|from|how|in|of|on|that|the same|those|to|what|when|where|whether|which|who|whose"
    "|why)\\b",
    re.IGNORECASE,
)
"""Openings of docstrings that describe nothing: a summary begins with a verb or a noun."""


class Offence(NamedTuple):
    """A name or docstring against the vocabulary."""

    line: int
    name: str
    advice: str


def find_offences(source: str) -> list[Offence]:
    """Return the offences in a module's source code, in the order of their lines."""
    nodes = list(ast.walk(ast.parse(source)))
    # Fields of classes are exempt: they are the keys of stored JSON documents.
    fields = {id(field) for node in nodes for field in _class_fields(node)}
    return sorted(
        offence for node in nodes if id(node) not in fields for offence in _check_node(node)
    )


def _class_fields(node: ast.AST) -> list[ast.expr]:
    statements = node.body if isinstance(node, ast.ClassDef) else []
    return [statement.target for statement in statements if isinstance(statement, ast.AnnAssign)]


def _check_node(node: ast.AST) -> Iterator[Offence]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield from _check_variable(node.lineno, node.id)
    elif isinstance(node, ast.arg):
        yield from _check_variable(node.lineno, node.arg)
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield from _check_variable(node.lineno, node.name)
    elif isinstance(node, ast.Assign):
        yield from _check_constants(node)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _check_function(node)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _check_docstring(node)


def _check_variable(line: int, name: str) -> Iterator[Offence]:
    if FILLER_NAMES.fullmatch(name.strip("_")):
        yield Offence(line, name, "name the variable after what it holds")


def _check_constants(node: ast.Assign) -> Iterator[Offence]:
    for target in node.targets:
        if isinstance(target, ast.Tuple):
            names = [element.id for element in target.elts if isinstance(element, ast.Name)]
            if len(names) > 1 and all(name.isupper() for name in names):
                yield Offence(node.lineno, ", ".join(names), "define one constant a line")


def _check_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Offence]:
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    # Properties and alternative constructors are named after what they return.
    if decorators & {"property", "cached_property", "classmethod"}:
        return
    # Names of one word: `is_finished` is a question, and `enabled_keys` a noun.
    name = node.name.strip("_")
    if PARTICIPLES.fullmatch(name) or FILLER_NAMES.fullmatch(name):
        yield Offence(node.lineno, node.name, "begin the function's name with an imperative verb")


def _check_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[Offence]:
    opening = OPENINGS.match(ast.get_docstring(node) or "")
    if opening:
        line = 1 if isinstance(node, ast.Module) else node.lineno
        advice = f"begin the docstring with a verb or a noun, not with {opening[0]!r}"
        yield Offence(line, getattr(node, "name", "module"), advice)


def main(folders: list[str]) -> int:
    """Print the offences in all Python files of the folders; return the exit status."""
    offence_count = 0
    for path in sorted(file for folder in folders for file in Path(folder).rglob("*.py")):
        for offence in find_offences(path.read_text(encoding="utf-8")):
            print(f"{path}:{offence.line}: {offence.name}: {offence.advice}")
            offence_count += 1
    return 1 if offence_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
