"""The stored columns, defined once; types in Spark, Arrow and the loader are derived from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fer_pipeline.data.face_row import FaceRow

IMAGE = "image"
LABEL = "label"
VOTES = "votes"  # distribution over the classes, in the order of their labels; sums to 1

ORIGIN: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",  # file of the image; a plain path if the file is local
        "record": "bigint",  # 0-based number in the file, without blank lines and the header
        "image_hash": "string",  # 32 hexadecimal digits, see `split_keys.hash_image`
        "variant": "string",  # see `variants.Variant`
        "replica": "int",  # 0 for the first row of an image, 1, 2, ... for oversampled rows
    }
)
"""The columns that describe the origin of an image: Spark type by column name."""

CLIP: Mapping[str, str] = MappingProxyType(
    {
        "frame": "int",  # number of the sampling time, from 0
        "time": "double",  # time at which the frame appears, in seconds after the first frame
        "track": "int",  # number of the track to which the face belongs, from 1
    }
)
"""The columns that describe a face or a frame of a clip; null for still images.

`frame` is set in every row of a clip. `time` is null in the row that says that the clip cannot be
read, or not to its end; its `frame` is the number after the last frame that was read."""

FACE_IMAGE = "face_image"

FACE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(FaceRow._fields, "float"),
        "face": "int",
        FACE_IMAGE: "binary",  # aligned grey values of the face, row by row
    }
)
"""The columns that describe a face in a larger image, see `face_row.FaceRow`; null for a crop."""

QUARANTINE: Mapping[str, str] = MappingProxyType(
    {
        "source": "string",
        "record": "bigint",
        "reason": "string",  # see `outcomes.QuarantineReason`
        "detail": "string",  # description of the error
        "excerpt": "string",
    }
)
"""The columns of the quarantine: location and error of a bad record."""

PIXEL_TYPES: Mapping[str, str] = MappingProxyType({"uint8": "binary", "float32": "array<float>"})
"""Spark type of an image, by the dtype of its values: pixels or normalised values. The values are
stored row by row."""


def dataset_columns(dtype: str, *, votes: bool = False) -> dict[str, str]:
    """Return the columns of a dataset: Spark type by column name.

    Args:
        dtype: Type of the values of an image, "uint8" or "float32".
        votes: Whether each row contains the distribution of the annotators' votes over the classes,
            in addition to the label.
    """
    distribution = {VOTES: "array<float>"} if votes else {}
    return {IMAGE: PIXEL_TYPES[dtype], LABEL: "int", "emotion": "string", **distribution, **ORIGIN}


def score_columns(classes: Sequence[str]) -> dict[str, str]:
    """Return the columns of the files that the score job writes: Spark type by column name.

    For a scored image `reason` is null, and `detail` is a note or null, see `image_notes`. For an
    image that could not be scored, they describe the error, and the columns of the scores are null.

    Args:
        classes: Emotions in the order of the model's outputs.
    """
    return {
        **ORIGIN,
        **CLIP,
        **FACE,
        "emotion": "string",
        "confidence": "float",
        **{f"p_{name}": "float" for name in classes},
        "reason": "string",
        "detail": "string",
    }


def format_ddl(columns: Mapping[str, str]) -> str:
    """Format columns as a Spark schema string (DDL), such as `source string, record bigint`.

    Args:
        columns: Spark type by column name.
    """
    return ", ".join(f"{name} {spark_type}" for name, spark_type in columns.items())
