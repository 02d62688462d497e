"""The manifest of a dataset: the JSON file that makes a folder of Parquet files a dataset.

The manifest lists the files of the dataset and is written atomically after all of them. Readers
open only the listed files, and a folder without a manifest is not a dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io import storage

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 2


class _Section(BaseModel):
    """An immutable part of the manifest."""

    model_config = ConfigDict(frozen=True)


class DataFile(_Section):
    """One Parquet file of the dataset.

    Attributes:
        path: Path of the file, relative to the manifest's folder.
        split: Split that the file belongs to.
        rows: Number of rows in the file.
        bytes: Size of the file, in bytes.
    """

    path: str
    split: Split
    rows: int
    bytes: int


class SourceFile(_Section):
    """One input CSV file, or one folder of input images.

    Attributes:
        path: Path or URL of the file or folder.
        records: Number of records that were read.
        quarantined: Number of records that were quarantined.
        fingerprint: Checksum of the records, independent of their order; 16 hexadecimal digits.
    """

    path: str
    records: int
    quarantined: int
    fingerprint: str


class ImageInfo(_Section):
    """Properties of all images of the dataset.

    Attributes:
        size: Height and width, in pixels.
        dtype: Type of the stored images: `uint8` for pixels, `float32` for normalised values.
        normalization: Normalisation of the images for the network; float32 images are stored
            normalised.
        enhancement: Enhancement that was applied to the images before resizing.
    """

    size: int
    dtype: Literal["uint8", "float32"]
    normalization: Normalization
    enhancement: Enhancement = Enhancement()


class LabelInfo(_Section):
    """Source of the labels.

    Attributes:
        votes: Name of the votes file; None if the labels come from the input itself.
        target: `hard` if only labels are stored; `soft` if the dataset also has the column
            `schema.VOTES` with the distribution of the votes.
    """

    votes: str | None = None
    target: Literal["hard", "soft"] = "hard"

    @property
    def has_soft_labels(self) -> bool:
        """Return whether each row stores a distribution over the classes in addition to its label.

        The distribution consists of the fractions of the annotators' votes.
        """
        return self.votes is not None and self.target == "soft"


class RowCounts(_Section):
    """Numbers of records, with read = kept + dropped + quarantined, and of written rows.

    Attributes:
        read: Number of records that were read.
        kept: Numbers of records that were kept, by split and class name.
        dropped: Numbers of records that were dropped, by reason.
        quarantined: Numbers of records that were quarantined, by reason.
        written: Number of rows that were written, including variants and oversampled copies.
    """

    read: int
    kept: dict[Split, dict[str, int]]
    dropped: dict[str, int]
    quarantined: dict[str, int]
    written: int


class Manifest(_Section):
    """Content of `manifest.json`.

    Attributes:
        format: Name of the format; always `fer_pipeline dataset`.
        format_version: Version of the format.
        created: Time of creation, ISO 8601 in UTC.
        image: Properties of the images.
        labels: Source of the labels.
        classes: Names of the emotions; the position of a name is its label.
        files: Parquet files of all splits.
        counts: Numbers of written rows, by split and class name.
        rows: Numbers of records by outcome, and number of written rows.
        notes: Numbers of kept images by note, see `image_notes`.
        quarantine: Paths of the files of quarantined records, relative to the manifest's folder.
        sources: Input files, or input folders of images.
        checksum: Checksum of all rows (split, label, image hash, pixels, variant, replica, and the
            distribution if stored), independent of their order and of the files; 16 hexadecimal
            digits.
        versions: Versions of the packages that wrote the dataset.
        config: Configuration of the preprocess job.
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
    notes: dict[str, int] = {}
    quarantine: list[str]
    sources: list[SourceFile]
    checksum: str
    versions: dict[str, str]
    config: dict[str, Any]

    def files_in(self, split: Split) -> list[DataFile]:
        """Return the Parquet files of a split."""
        return [file for file in self.files if file.split == split]

    def row_count(self, split: Split) -> int:
        """Return the number of rows in a split."""
        return sum(file.rows for file in self.files_in(split))

    def all_files(self) -> list[str]:
        """Return the paths of all files of the splits and the quarantine, relative to the folder.

        The quarantine holds the records that could not be read.
        """
        return [*(file.path for file in self.files), *self.quarantine]

    def to_json(self) -> str:
        """Return the manifest as JSON text, the content of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, folder: Path) -> None:
        """Write `manifest.json` to a folder, which makes the folder a dataset.

        Args:
            folder: Folder of the dataset.

        Raises:
            StorageError: The file cannot be written.
        """
        storage.write_text(folder / MANIFEST_FILE, self.to_json())
