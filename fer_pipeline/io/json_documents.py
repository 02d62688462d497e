"""JSON files with a format version that describe what their folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io import storage

Document = TypeVar("Document", bound=BaseModel)


def read_document(
    path: Path,
    model: type[Document],
    error_class: type[DatasetError] | type[RunError],
    problem: str = "is damaged",
) -> Document:
    """Read and validate a JSON file.

    Args:
        path: The file.
        model: Class of its content. The default of the field `format_version` is the newest
            version that this package reads.
        error_class: Class of the error that is raised if the content is not valid.
        problem: Description of invalid content for the message.

    Raises:
        DatasetError: The content is not valid, and `error_class` is this class.
        RunError: The content is not valid, and `error_class` is this class.
        StorageError: The file cannot be read.
    """
    text = storage.read_text(path)
    newest_version = model.model_fields["format_version"].default
    version = _parse_format_version(text)
    if version is not None and version > newest_version:
        raise error_class(
            f"{path.parent}: its format is {version}, this version reads up to {newest_version};"
            " update fer_pipeline"
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise error_class(f"{path}: {problem}: {key}: {first['msg']}") from error


def _parse_format_version(text: str) -> int | None:
    """Return the format version of a JSON text, or None if it has none."""
    try:
        version = json.loads(text).get("format_version")
    except (ValueError, AttributeError):
        return None
    return version if isinstance(version, int) else None
