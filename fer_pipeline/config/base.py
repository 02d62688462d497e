"""The base class of all configuration sections, and types that several sections share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fer_pipeline import emotions

Emotion = Annotated[str, BeforeValidator(lambda name: emotions.canonical(str(name)))]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A configuration section: unknown keys are refused, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _default_if_empty(cls, raw: Any) -> Any:
        # YAML reads a section whose keys are all commented out as null.
        return {} if raw is None else raw


def rename_keys(mapping: dict[Any, Any], rename: Callable[[Any], str], noun: str) -> dict[str, Any]:
    """Return the mapping with each key renamed.

    Args:
        mapping: Mapping whose keys are renamed.
        rename: Function from an old key to its new name.
        noun: Name of what the keys stand for, for the error message.

    Raises:
        ValueError: Two keys get the same name. One of them would be ignored silently.
    """
    renamed: dict[str, Any] = {}
    for key, member in mapping.items():
        name = rename(key)
        if name in renamed:
            raise ValueError(f"names the {noun} {name} twice")
        renamed[name] = member
    return renamed
