"""The manifest of a dataset: the JSON file that makes a folder of Parquet files a dataset.

It is written last and in one step, and names the files that belong to the dataset. Readers open no
other files, and a folder without a manifest is no dataset.
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
    model_config = ConfigDict(frozen=True)


class DataFile(_Section):
    """One Parquet file of the dataset.

    Attributes:
        path: Path relative to the manifest.
        split: Split of its rows.
        rows: Number of rows.
        bytes: Size of the file.
    """

    path: str
    split: Split
    rows: int
    bytes: int


class SourceFile(_Section):
    """One input file, or one folder of images.

    Attributes:
        path: Path or URL.
        records: Number of records that were read.
        quarantined: Number of records that were quarantined.
        fingerprint: Checksum of the records' content in any order; 16 hexadecimal digits.
    """

    path: str
    records: int
    quarantined: int
    fingerprint: str


class ImageInfo(_Section):
    """Properties of all images of the dataset.

    Attributes:
        size: Side, in pixels.
        dtype: Type of the stored values: pixels, or normalised values.
        normalization: Normalisation for the network; float32 images are stored normalised.
        enhancement: Enhancement of the images before they were resized.
    """

    size: int
    dtype: Literal["uint8", "float32"]
    normalization: Normalization
    enhancement: Enhancement = Enhancement()


class LabelInfo(_Section):
    """Source of the labels.

    Attributes:
        votes: Name of the file of votes; None for the labels of the input itself.
        target: `hard`: the label alone; `soft`: the dataset also has a column `schema.VOTES`.
    """

    votes: str | None = None
    target: Literal["hard", "soft"] = "hard"

    @property
    def has_soft_labels(self) -> bool:
        """Return whether the dataset has a distribution over the classes beside each label."""
        return self.votes is not None and self.target == "soft"


class RowCounts(_Section):
    """Counts of the records: read = kept + dropped + quarantined.

    Attributes:
        read: Records that were read.
        kept: Records that were kept, by split and class.
        dropped: Records that were dropped, by reason.
        quarantined: Records that were quarantined, by reason.
        written: Rows that were written, with variants and oversampled copies.
    """

    read: int
    kept: dict[Split, dict[str, int]]
    dropped: dict[str, int]
    quarantined: dict[str, int]
    written: int


class Manifest(_Section):
    """Content of `manifest.json`.

    Attributes:
        created: Time of the writing, ISO 8601 in UTC.
        image: Properties of the images.
        labels: Source of the labels.
        classes: Names of the emotions; the position of a name is its label.
        files: Parquet files of all splits.
        counts: Rows written, by split and class.
        rows: Counts of the records.
        quarantine: Paths of the files of quarantined records, relative to the manifest.
        sources: Input files.
        checksum: Checksum of the content (split, label, image, pixels, variant, replica, and the
            distribution if there is one) in any partitioning; 16 hexadecimal digits.
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
    quarantine: list[str]
    sources: list[SourceFile]
    checksum: str
    versions: dict[str, str]
    config: dict[str, Any]

    def files_in(self, split: Split) -> list[DataFile]:
        """Return the files of a split."""
        return [file for file in self.files if file.split == split]

    def row_count(self, split: Split) -> int:
        """Return the number of rows of a split."""
        return sum(file.rows for file in self.files_in(split))

    def all_files(self) -> list[str]:
        """Return the paths of all files of the dataset, relative to its folder."""
        return [*(file.path for file in self.files), *self.quarantine]

    def to_json(self) -> str:
        """Return the content of `manifest.json`."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, which makes the folder a dataset.

        Raises:
            StorageError: The file cannot be written.
        """
        storage.write_text(folder / MANIFEST_FILE, self.to_json())
