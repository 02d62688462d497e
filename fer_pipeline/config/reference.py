"""The table of configuration keys, which `python -m fer_pipeline.config.reference` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from fer_pipeline.config.schema import Config


def format_key_table() -> str:
    """Return a Markdown table of all configuration keys, with their defaults and help texts."""
    rows = [f"| `{key}` | {default} | {text} |" for key, default, text in _iterate_keys(Config())]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _iterate_keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the dotted key, the default and the help text of each key of a section.

    Args:
        section: Section with its default values; its subsections are included.
        prefix: Dotted key of the section with a final dot, or "" for the whole configuration.
    """
    for name, field in type(section).model_fields.items():
        member = getattr(section, name)
        if isinstance(member, BaseModel):
            yield from _iterate_keys(member, f"{prefix}{name}.")
        else:
            choices = _format_choices(field.annotation)
            text = " ".join(filter(None, [field.description, choices]))
            yield f"{prefix}{name}", _format_default(section, name), text


def _format_choices(annotation: Any) -> str:
    """Return "One of `A`, `B`." for `Literal["A", "B"]` and `Literal["A", "B"] | None`.

    Return "" for other types.
    """
    if get_origin(annotation) is Literal:
        return "One of " + ", ".join(f"`{choice}`" for choice in get_args(annotation)) + "."
    types = [argument for argument in get_args(annotation) if argument is not type(None)]
    is_optional = isinstance(annotation, UnionType) and len(types) == 1
    return _format_choices(types[0]) if is_optional else ""


def _format_default(section: BaseModel, name: str) -> str:
    """Return the default of a key as Markdown; "" if it is empty, null or depends on other keys."""
    # If the default depends on other keys, its field is None and the help text explains it.
    field = type(section).model_fields[name]
    default = section.model_dump(mode="json")[name] if field.default is not None else None
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(format_key_table())
