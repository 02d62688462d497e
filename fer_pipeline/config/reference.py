"""The configuration's keys as a table: `python -m fer_pipeline.config.reference` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from fer_pipeline.config.keys import Config


def reference() -> str:
    """Every key with its default and its meaning, as a Markdown table."""
    rows = [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _keys(Config())]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _keys(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            meaning = "; ".join(filter(None, [field.description, _choices(field.annotation)]))
            yield f"{prefix}{name}", _shown(section, name), meaning


def _choices(annotation: Any) -> str:
    """The values that a key may have, where they are a few words."""
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    others = [one for one in get_args(annotation) if one is not type(None)]
    return _choices(others[0]) if isinstance(annotation, UnionType) and len(others) == 1 else ""


def _shown(section: BaseModel, name: str) -> str:
    # Without the defaults that depend on other keys: those are said in words.
    field = type(section).model_fields[name]
    value: Any = section.model_dump(mode="json")[name] if field.default is not None else None
    return "" if value in (None, [], {}) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    print(reference())
