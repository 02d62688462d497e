"""The stored columns, defined once: Spark's schema, Arrow's and the feed's shapes follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

IMAGE, LABEL = "image", "label"
VOTES = "votes"  # the distribution over the classes in the order of their labels; it sums to 1

ORIGIN: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",  # the file that the image came from: its plain path where it is local
        "record": "bigint",  # its 0-based number there; blank lines and the header do not count
        "image_hash": "string",  # 32 hexadecimal digits, see `splits.image_hash`
        "variant": "string",  # see `augmentation.Variant`
        "replica": "int",  # 0, 1, ...: number of the replica that oversampling wrote
    }
)
"""Where an image comes from: column name to Spark's type."""

QUARANTINE: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",
        "record": "bigint",
        "reason": "string",  # see `accounting.Reason`
        "detail": "string",  # what was got and what was expected
        "excerpt": "string",
    }
)
"""The columns of the quarantine: where a bad row stands, and what is wrong with it."""

PIXEL_TYPES: Mapping[str, str] = MappingProxyType({"uint8": "binary", "float32": "array<float>"})
"""How the pixels of an image are stored, row by row: bytes, or normalised values."""


def dataset_columns(dtype: str, *, votes: bool = False) -> dict[str, str]:
    """The columns of a dataset: name to Spark's type.

    Args:
        dtype: Of its pixels.
        votes: Whether it holds a distribution over the classes beside each label.
    """
    distribution = {VOTES: "array<float>"} if votes else {}
    return {IMAGE: PIXEL_TYPES[dtype], LABEL: "int", "emotion": "string", **distribution, **ORIGIN}


def score_columns(classes: Sequence[str]) -> dict[str, str]:
    """The columns of scores: name to Spark's type.

    Either `reason` is null and the others tell what the image shows, or it says why none could be
    scored and the others are null.
    """
    return {
        **ORIGIN,
        "emotion": "string",
        "confidence": "float",
        **{f"p_{name}": "float" for name in classes},
        "reason": "string",
        "detail": "string",
    }


def ddl(columns: Mapping[str, str]) -> str:
    """The columns in the form that Spark takes for a schema."""
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
