"""What the sections of the configuration share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fer_pipeline.data import emotions

Emotion = Annotated[str, BeforeValidator(lambda name: emotions.canonical_emotion(str(name)))]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section: its keys are fixed, and so are its values once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, value: Any) -> Any:
        # YAML reads a section of which every key is commented out as null.
        return {} if value is None else value


def renamed(mapping: dict[Any, Any], rename: Callable[[Any], str], what: str) -> dict[str, Any]:
    """The mapping under other keys; two that become one would contradict each other unseen."""
    renamed: dict[str, Any] = {}
    for key, value in mapping.items():
        name = rename(key)
        if name in renamed:
            raise ValueError(f"names the {what} {name} twice")
        renamed[name] = value
    return renamed
