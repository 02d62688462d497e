"""The manifest: what makes a folder of Parquet files a dataset.

It is written last and in one step, and names the files that belong to the dataset: readers open
those and no others, and a folder without a manifest is no dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fer_pipeline import storage
from fer_pipeline.accounting import Split
from fer_pipeline.enhancement import Enhancement
from fer_pipeline.errors import DatasetError, StorageError
from fer_pipeline.pixels import Normalization

NAME = "manifest.json"
FORMAT_VERSION = 2
_FORMAT = storage.FileFormat(
    version=FORMAT_VERSION,
    error=DatasetError,
    invalid="is not a valid manifest",
    upgrade="run preprocess again",
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class DataFile(_Part):
    """One Parquet file of the dataset."""

    path: str  # relative to the manifest
    split: Split
    rows: int
    bytes: int


class SourceFile(_Part):
    """One file that was read, or one folder of images."""

    path: str
    records: int
    quarantined: int
    fingerprint: str  # of its records' content, whatever their order; 16 hexadecimal digits


class ImageInfo(_Part):
    """What every image of the dataset is."""

    size: int
    dtype: Literal["uint8", "float32"]
    normalization: Normalization
    enhancement: Enhancement = Enhancement()


class LabelInfo(_Part):
    """Where the labels come from.

    Attributes:
        votes: The file of the votes; None where the labels are the source's own.
        target: `hard`: the label alone; `soft`: the dataset also has a column `schema.VOTES`.
    """

    votes: str | None = None
    target: Literal["hard", "soft"] = "hard"

    @property
    def distribution(self) -> bool:
        """Whether the dataset holds a distribution over the classes beside each label."""
        return self.votes is not None and self.target == "soft"


class RowCounts(_Part):
    """The books: read = kept + dropped + quarantined; written counts variants and copies too."""

    read: int
    kept: dict[Split, dict[str, int]]
    dropped: dict[str, int]
    quarantined: dict[str, int]
    written: int


class Manifest(_Part):
    """A dataset's manifest.

    Attributes:
        classes: The emotions; the position of one is its label.
        counts: Rows written, by split and class.
        checksum: Of the content (split, label, image, pixels, variant, replica, and
            the distribution where there is one), whatever the partitioning; 16 hexadecimal digits.
    """

    format: Literal["fer_pipeline dataset"] = "fer_pipeline dataset"
    format_version: int = FORMAT_VERSION
    created: str
    image: ImageInfo
    labels: LabelInfo = LabelInfo()
    classes: list[str]
    files: list[DataFile]
    counts: dict[Split, dict[str, int]]
    rows: RowCounts
    quarantine: list[str]
    sources: list[SourceFile]
    checksum: str
    versions: dict[str, str]
    config: dict[str, Any]

    def files_of(self, split: Split) -> list[DataFile]:
        """The files of a split."""
        return [file for file in self.files if file.split == split]

    def rows_of(self, split: Split) -> int:
        """How many rows a split has."""
        return sum(file.rows for file in self.files_of(split))

    def all_files(self) -> list[str]:
        """The paths of all files that belong to the dataset, relative to its folder."""
        return [*(file.path for file in self.files), *self.quarantine]

    def write(self, folder: Path) -> None:
        """Publishes the dataset: from here on the folder is what this manifest says."""
        storage.write_text(folder / NAME, self.model_dump_json(indent=2) + "\n")


def exists(folder: Path) -> bool:
    """Whether the folder is a dataset."""
    return storage.is_file(folder / NAME)


def exists_at(path: str) -> bool:
    """Whether a path that a user names, which may be no local one at all, is a dataset."""
    try:
        return exists(storage.path(path))
    except StorageError:
        return False


def read(folder: Path) -> Manifest:
    """Reads a dataset's manifest.

    Raises:
        DatasetError: The folder is no dataset, one of another format, or has a broken manifest.
    """
    if not exists(folder):
        there = storage.is_folder(folder)
        what = "holds no dataset (no manifest.json)" if there else "no such folder"
        raise DatasetError(f"{folder}: {what}; make one with the preprocess job")
    return storage.read_described(folder / NAME, Manifest, _FORMAT)


def require(folder: Path, manifest: Manifest, split: Split) -> list[DataFile]:
    """The files of a split that a job cannot do without.

    Raises:
        DatasetError: The split is empty, or a file is missing or of another length.
    """
    files = manifest.files_of(split)
    if not sum(file.rows for file in files):
        filled = ", ".join(f"{part} ({manifest.rows_of(part)})" for part in Split)
        raise DatasetError(f"{folder}: the {split} split is empty; rows per split: {filled}")
    for file in files:
        _require_file(folder, file)
    return files


def require_files(folder: Path, manifest: Manifest) -> None:
    """Makes sure that all files are there.

    Raises:
        DatasetError: A file is missing or of another length.
    """
    for file in manifest.files:
        _require_file(folder, file)


def require_enhancement(folder: Path, manifest: Manifest, enhancement: Enhancement) -> None:
    """Makes sure that a dataset's images are enhanced as those that a model learned from.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        enhancement: That of the model.

    Raises:
        DatasetError: They are enhanced otherwise.
    """
    found = manifest.image.enhancement
    if found != enhancement:
        raise DatasetError(
            f"{folder}: its images are enhanced by {found}, the model learned from images enhanced"
            f" by {enhancement}; prepare the dataset with the model's image.enhancement"
        )


def _require_file(folder: Path, file: DataFile) -> None:
    path = folder / file.path
    found = path.stat().st_size if storage.is_file(path) else None
    if found != file.bytes:
        state = "is missing" if found is None else f"has {found} bytes"
        raise DatasetError(
            f"{path}: {state}, the manifest says {file.bytes} bytes; run preprocess again"
        )
