"""JSON files with a format version that describe what their folder holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io import storage

UPGRADE_RUN = "convert it with scripts/migrate-run {folder}"
"""What to do about a run or an export that an older version of the package wrote."""

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class DocumentFormat:
    """The format of a JSON file that describes its folder.

    Attributes:
        version: Version of the format that this version of the package reads and writes.
        error_class: Class of the error that is raised if the file has another format or is invalid.
        problem: Predicate of the message about an invalid file, such as `is damaged`.
        upgrade: What to do about a folder in an older format; `{folder}` in it is replaced.
    """

    version: int
    error_class: type[DatasetError] | type[RunError]
    problem: str
    upgrade: str

    def require_version(self, folder: Path, version: int) -> None:
        """Check that a folder has this version of the format.

        Raises:
            DatasetError: The dataset was written in an older or a newer format.
            RunError: The run was written in an older or a newer format.
        """
        if version == self.version:
            return
        if version > self.version:
            remedy = "update fer_pipeline"
        else:
            remedy = self.upgrade.format(folder=folder)
        raise self.error_class(
            f"{folder}: has format {version}, this version of fer_pipeline reads format"
            f" {self.version}; {remedy}"
        )


def read_document(path: Path, model: type[Document], document_format: DocumentFormat) -> Document:
    """Read and validate a JSON file.

    Args:
        path: The file.
        model: Class of its content.
        document_format: Format of the file.

    Raises:
        DatasetError: The dataset's file is invalid, or has another format.
        RunError: The run's file is invalid, or has another format.
        StorageError: The file cannot be read.
    """
    text = storage.read_text(path)
    version = _parse_format_version(text)
    if version is not None:
        document_format.require_version(path.parent, version)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise document_format.error_class(
            f"{path}: {document_format.problem}: {key}: {first['msg']}"
        ) from error


def _parse_format_version(text: str) -> int | None:
    """Return the format version of a JSON text, or None if it has none."""
    try:
        version = json.loads(text).get("format_version")
    except (ValueError, AttributeError):
        return None
    return version if isinstance(version, int) else None
