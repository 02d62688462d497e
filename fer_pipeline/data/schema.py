"""The stored columns, defined once: the types of Spark, Arrow and the loader follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

IMAGE = "image"
LABEL = "label"
VOTES = "votes"  # the distribution over the classes in the order of their labels; it sums to 1

ORIGIN: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",  # the file that the image came from: its plain path where it is local
        "record": "bigint",  # its 0-based number there; blank lines and the header do not count
        "image_hash": "string",  # 32 hexadecimal digits, see `split_keys.hash_image`
        "variant": "string",  # see `variants.Variant`
        "replica": "int",  # 0, 1, ...: number of the replica that oversampling wrote
    }
)
"""The origin of an image: column name to Spark's type."""

QUARANTINE: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",
        "record": "bigint",
        "reason": "string",  # see `outcomes.QuarantineReason`
        "detail": "string",  # what the record holds and what was expected
        "excerpt": "string",
    }
)
"""The columns of the quarantine: the place of a bad row, and what is wrong with it."""

PIXEL_TYPES: Mapping[str, str] = MappingProxyType({"uint8": "binary", "float32": "array<float>"})
"""Spark's type of an image's pixels, row by row: bytes, or normalised values."""


def dataset_columns(dtype: str, *, votes: bool = False) -> dict[str, str]:
    """Return the columns of a dataset: name to Spark's type.

    Args:
        dtype: Type of its pixels, a key of PIXEL_TYPES.
        votes: Whether it holds a distribution over the classes beside each label.
    """
    distribution = {VOTES: "array<float>"} if votes else {}
    return {IMAGE: PIXEL_TYPES[dtype], LABEL: "int", "emotion": "string", **distribution, **ORIGIN}


def score_columns(classes: Sequence[str]) -> dict[str, str]:
    """Return the columns of scores: name to Spark's type.

    Either `reason` is null and the other columns hold the scores, or it says why the image could
    not be scored and the others are null.

    Args:
        classes: The emotions in the order of the model's outputs.
    """
    return {
        **ORIGIN,
        "emotion": "string",
        "confidence": "float",
        **{f"p_{name}": "float" for name in classes},
        "reason": "string",
        "detail": "string",
    }


def format_ddl(columns: Mapping[str, str]) -> str:
    """Return the columns as a schema in the form that Spark reads (DDL)."""
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
