"""The base class of all configuration sections, and types that several sections share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fer_pipeline.data import emotions

Emotion = Annotated[str, BeforeValidator(lambda name: emotions.canonical_emotion(str(name)))]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A configuration section: unknown keys are refused, and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _replace_null_by_defaults(cls, raw: Any) -> Any:
        """Replace null by an empty section, whose keys have their defaults.

        YAML reads a section as null if all its keys are commented out. Any other value is returned
        unchanged.
        """
        return {} if raw is None else raw


def rename_keys(
    mapping: dict[Any, Any], rename_key: Callable[[Any], str], noun: str
) -> dict[str, Any]:
    """Return a mapping with all keys renamed and with the values unchanged.

    Args:
        mapping: Mapping with the old keys.
        rename_key: Function that takes an old key and returns the new key.
        noun: Singular noun for a key in the error message, such as "emotion".

    Raises:
        ValueError: Two old keys have the same new key, so that one value would be lost.
    """
    renamed_mapping: dict[str, Any] = {}
    for old_key, member in mapping.items():
        new_key = rename_key(old_key)
        if new_key in renamed_mapping:
            raise ValueError(f"contains the {noun} {new_key} twice")
        renamed_mapping[new_key] = member
    return renamed_mapping
