"""The table of configuration keys: `python -m fer_pipeline.config.reference` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from fer_pipeline.config.schema import Config


def format_reference() -> str:
    """Return all keys with their defaults and help texts, as a Markdown table."""
    rows = [f"| `{key}` | {default} | {text} |" for key, default, text in _iterate_keys(Config())]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _iterate_keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in type(section).model_fields.items():
        member = getattr(section, name)
        if isinstance(member, BaseModel):
            yield from _iterate_keys(member, f"{prefix}{name}.")
        else:
            choices = _format_choices(field.annotation)
            text = " ".join(filter(None, [field.description, choices]))
            yield f"{prefix}{name}", _format_default(section, name), text


def _format_choices(annotation: Any) -> str:
    """Return a sentence with the choices of a key that has a few; otherwise nothing."""
    if get_origin(annotation) is Literal:
        return "One of " + ", ".join(f"`{choice}`" for choice in get_args(annotation)) + "."
    types = [argument for argument in get_args(annotation) if argument is not type(None)]
    is_optional = isinstance(annotation, UnionType) and len(types) == 1
    return _format_choices(types[0]) if is_optional else ""


def _format_default(section: BaseModel, name: str) -> str:
    # Defaults that depend on other keys are explained in the help text instead.
    field = type(section).model_fields[name]
    default = section.model_dump(mode="json")[name] if field.default is not None else None
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(format_reference())
