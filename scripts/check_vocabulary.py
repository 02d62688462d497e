"""Check the names and docstrings of Python files against rules for plain technical English.

    python scripts/check_vocabulary.py FOLDER...

Prints `FILE:LINE: NAME: ADVICE` for each violation. The exit status is 1 if there is a violation.
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
"""Names of variables and parameters that do not describe their content."""

PARTICIPLES = re.compile(
    "begun|chosen|done|drawn|found|given|gone|held|kept|known|left|lost|made|met|said|shown|sought"
    "|taken|taught|thought|told|tried|(?!(embed|feed|need|seed|shed|speed|.*ceed)$)[a-z]+ed"
)
"""One-word function names that are participles. Verbs that end in "ed" are exempt."""

OPENINGS = re.compile(
    "(as|by|for|from|how|in|of|on|that|the same|those|to|what|when|where|whether|which|who|whose"
    "|why)\\b",
    re.IGNORECASE,
)
"""First words that a docstring must not have, because it must begin with a verb or a noun."""


class Violation(NamedTuple):
    """Name or docstring that breaks a rule.

    Attributes:
        line: Line number in the file, from 1.
        name: Variable, function or class.
        advice: Instruction to fix the violation.
    """

    line: int
    name: str
    advice: str


def find_violations(source: str) -> list[Violation]:
    """Return the violations in the source code of a module, in the order of their lines."""
    nodes = list(ast.walk(ast.parse(source)))
    # Fields of classes are exempt: they are the keys of stored JSON documents.
    fields = {id(field) for node in nodes for field in _list_class_fields(node)}
    return sorted(
        violation for node in nodes if id(node) not in fields for violation in _check_node(node)
    )


def _list_class_fields(node: ast.AST) -> list[ast.expr]:
    """Return the annotated fields of a class; empty for other nodes."""
    statements = node.body if isinstance(node, ast.ClassDef) else []
    return [statement.target for statement in statements if isinstance(statement, ast.AnnAssign)]


def _check_node(node: ast.AST) -> Iterator[Violation]:
    """Yield the violations of a node without its child nodes."""
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


def _check_variable(line: int, name: str) -> Iterator[Violation]:
    """Check that the name of a variable or parameter is no filler."""
    if FILLER_NAMES.fullmatch(name.strip("_")):
        yield Violation(line, name, "name the variable after what it holds")


def _check_constants(node: ast.Assign) -> Iterator[Violation]:
    """Check that an assignment does not define several constants."""
    for target in node.targets:
        if isinstance(target, ast.Tuple):
            names = [element.id for element in target.elts if isinstance(element, ast.Name)]
            if len(names) > 1 and all(name.isupper() for name in names):
                yield Violation(node.lineno, ", ".join(names), "define one constant a line")


def _check_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Violation]:
    """Check that the name of a function is neither a participle nor a filler."""
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    # Properties and alternative constructors are named after what they return.
    if decorators & {"property", "cached_property", "classmethod"}:
        return
    # Only names of one word match: `is_finished` is a question and `enabled_keys` is a noun.
    name = node.name.strip("_")
    if PARTICIPLES.fullmatch(name) or FILLER_NAMES.fullmatch(name):
        yield Violation(node.lineno, node.name, "begin the function's name with an imperative verb")


def _check_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[Violation]:
    """Check the first words of a docstring."""
    opening = OPENINGS.match(ast.get_docstring(node) or "")
    if opening:
        line = 1 if isinstance(node, ast.Module) else node.lineno
        advice = f"begin the docstring with a verb or a noun, not with {opening[0]!r}"
        yield Violation(line, getattr(node, "name", "module"), advice)


def main(folders: list[str]) -> int:
    """Print the violations in all Python files of the folders.

    Returns:
        The exit status: 1 if there is a violation, else 0.
    """
    violation_count = 0
    for path in sorted(file for folder in folders for file in Path(folder).rglob("*.py")):
        for violation in find_violations(path.read_text(encoding="utf-8")):
            print(f"{path}:{violation.line}: {violation.name}: {violation.advice}")
            violation_count += 1
    return 1 if violation_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
