"""The tables of configuration keys in `docs/configuration.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fer_pipeline.config.schema import Config

_TABLE_HEADER = ("| key | default | meaning |", "|---|---|---|")


def format_key_tables() -> str:
    """Return all keys as Markdown: for each section a heading, a sentence and a table.

    A table has the dotted key, its default, and its help text with the allowed values.
    """
    blocks = ["## Top-level keys", _format_table(Config())]
    for name, section in _iterate_sections(Config()):
        description = (type(section).__doc__ or "").strip()
        blocks += [f"## {name}", description, _format_table(section, f"{name}.")]
    return "\n\n".join(filter(None, blocks))


def _iterate_sections(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Yield the dotted name and the default values of each section below a section.

    Args:
        section: Section with its default values.
        prefix: Dotted name of the section with a final dot, or "" for the whole configuration.
    """
    for name in type(section).model_fields:
        member = getattr(section, name)
        if isinstance(member, BaseModel):
            yield f"{prefix}{name}", member
            yield from _iterate_sections(member, f"{prefix}{name}.")


def _format_table(section: BaseModel, prefix: str = "") -> str:
    """Return the table of the keys of a section, without its subsections; "" if it has no key.

    Args:
        section: Section with its default values.
        prefix: Dotted name of the section with a final dot, or "" for the whole configuration.
    """
    rows = []
    for name, field in type(section).model_fields.items():
        if isinstance(getattr(section, name), BaseModel):
            continue
        texts = [
            field.description,
            _format_choices(field.annotation),
            _format_range(_collect_constraints(field)),
        ]
        meaning = " ".join(filter(None, texts))
        rows.append(f"| `{prefix}{name}` | {_format_default(section, name)} | {meaning} |")
    return "\n".join([*_TABLE_HEADER, *rows]) if rows else ""


def _format_choices(annotation: Any) -> str:
    """Return "One of `A`, `B`." for `Literal["A", "B"]` and `Literal["A", "B"] | None`.

    Return "" for other types.
    """
    if get_origin(annotation) is Literal:
        return "One of " + ", ".join(f"`{choice}`" for choice in get_args(annotation)) + "."
    optional_type = _get_optional_type(annotation)
    return _format_choices(optional_type) if optional_type is not None else ""


def _get_optional_type(annotation: Any) -> Any:
    """Return the type `T` of an annotation `T | None`; None for any other annotation."""
    types = [argument for argument in get_args(annotation) if argument is not type(None)]
    # The union of None with a `Literal` or `Annotated` type is a `typing.Union`.
    is_union = get_origin(annotation) in (UnionType, Union)
    return types[0] if is_union and len(types) == 1 else None


def _collect_constraints(field: FieldInfo) -> list[Any]:
    """Return the constraints of a number, such as `Ge(0)`, of a field or of an optional field."""
    optional_type = _get_optional_type(field.annotation)
    metadata = [*field.metadata]
    if get_origin(optional_type) is Annotated:
        metadata += optional_type.__metadata__
    constraints = []
    for entry in metadata:
        # An `Annotated` type contains a whole `Field` with its own metadata.
        constraints += entry.metadata if isinstance(entry, FieldInfo) else [entry]
    return constraints


def _format_range(constraints: Iterable[Any]) -> str:
    """Return the allowed numbers as a sentence, such as "From 8 to 512."; "" without limits."""
    lower, upper = "", ""
    for constraint in constraints:
        match constraint:
            case annotated_types.Ge():
                lower = f"from {constraint.ge:,}"
            case annotated_types.Gt():
                lower = f"above {constraint.gt:,}"
            case annotated_types.Le():
                upper = f"to {constraint.le:,}"
            case annotated_types.Lt():
                conjunction = "and" if lower.startswith("above") else "to"
                upper = f"{conjunction} less than {constraint.lt:,}"
    if lower.startswith("from") and not upper:
        return f"{lower.removeprefix('from ')} or more."
    return f"{lower} {upper}".strip().capitalize() + "." if lower or upper else ""


def _format_default(section: BaseModel, name: str) -> str:
    """Return the default of a key as Markdown; "" if it is empty, null or depends on other keys."""
    # If the default depends on other keys, its field is None and the help text explains it.
    field = type(section).model_fields[name]
    default = section.model_dump(mode="json")[name] if field.default is not None else None
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(format_key_tables())
