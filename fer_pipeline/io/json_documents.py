"""JSON files with a format version that describe the content of their folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io import storage

UPGRADE_RUN = "convert it with scripts/migrate-run {folder}"
"""Advice about a run or an export that an older version of the package wrote."""

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class DocumentFormat:
    """The format of a JSON file that describes its folder, and the errors about such a file.

    Attributes:
        version: Format version that this version of the package reads and writes.
        error_class: Class of the error that is raised if the file is invalid or has a different
            format version.
        problem: Words after the path in the message about an invalid file, such as `is damaged`.
        upgrade: Advice about a folder in an older format; `{folder}` is replaced by its path.
    """

    version: int
    error_class: type[DatasetError] | type[RunError]
    problem: str
    upgrade: str

    def require_version(self, folder: Path, found_version: int) -> None:
        """Check that a folder has the format version that this version of the package reads.

        Args:
            folder: Folder that the JSON file describes.
            found_version: Format version that the JSON file states.

        Raises:
            DatasetError: The dataset was written in an older or a newer format.
            RunError: The run was written in an older or a newer format.
        """
        if found_version == self.version:
            return
        if found_version > self.version:
            remedy = "update fer_pipeline"
        else:
            remedy = self.upgrade.format(folder=folder)
        raise self.error_class(
            f"{folder}: has format {found_version}, this version of fer_pipeline reads format"
            f" {self.version}; {remedy}"
        )


def read_document(path: Path, model: type[Document], document_format: DocumentFormat) -> Document:
    """Read and validate a JSON file that describes the dataset or run in its folder.

    Args:
        path: Path of the file.
        model: Pydantic class that validates the content.
        document_format: Format version to accept, and class and texts of the errors.

    Returns:
        The content, as an instance of `model`.

    Raises:
        DatasetError: The file describes a dataset, and is invalid or has a different format
            version.
        RunError: The file describes a run, and is invalid or has a different format version.
        StorageError: The file cannot be read.
    """
    text = storage.read_text(path)
    found_version = _parse_format_version(text)
    if found_version is not None:
        document_format.require_version(path.parent, found_version)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first_error = error.errors()[0]
        key = ".".join(map(str, first_error["loc"])) or "the file"
        raise document_format.error_class(
            f"{path}: {document_format.problem}: {key}: {first_error['msg']}"
        ) from error


def _parse_format_version(text: str) -> int | None:
    """Return the format version that a JSON text states, or None if it states no valid one."""
    try:
        version = json.loads(text).get("format_version")
    except (ValueError, AttributeError):
        return None
    return version if isinstance(version, int) else None
