"""The configuration's keys as a table: `python -m fer_pipeline.config.reference` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

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
            yield f"{prefix}{name}", _shown(section, name), field.description or ""


def _shown(section: BaseModel, name: str) -> str:
    # Without the defaults that depend on other keys: those are said in words.
    field = type(section).model_fields[name]
    value: Any = section.model_dump(mode="json")[name] if field.default is not None else None
    return "" if value in (None, [], {}) else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    print(reference())
