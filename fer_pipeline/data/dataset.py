"""A dataset on disk: its folder and its manifest, as one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fer_pipeline.data import manifest as manifest_file
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.manifest import DataFile, Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path


@dataclass(frozen=True)
class StoredDataset:
    """A dataset on disk.

    Attributes:
        folder: Folder of the dataset.
        manifest: Its manifest, which names the files that belong to it.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a dataset: read its manifest, but none of its Parquet files.

        Args:
            path: Folder of the dataset, a local path or a URL.

        Raises:
            DatasetError: The folder is no dataset, has another format, or its manifest is invalid.
            StorageError: The folder cannot be reached.
        """
        folder = parse_path(path)
        return cls(folder, manifest_file.read(folder))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the emotions; the position of a name is its label."""
        return self.manifest.classes

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return self.manifest.image.size

    @property
    def checksum(self) -> str:
        """Checksum of the content, 16 hexadecimal digits."""
        return self.manifest.checksum

    def row_count(self, split: Split) -> int:
        """Return the number of rows of a split."""
        return self.manifest.rows_of(split)

    def require_split(self, split: Split) -> list[DataFile]:
        """Return the files of a split, which must have rows.

        Raises:
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        return manifest_file.require(self.folder, self.manifest, split)

    def require_all_files(self) -> None:
        """Check that all files of all splits exist and have the size that the manifest states.

        Raises:
            DatasetError: A file is missing or has another size.
        """
        manifest_file.require_files(self.folder, self.manifest)

    def require_enhancement(self, enhancement: Enhancement) -> None:
        """Check that the images were enhanced like the training images of a model.

        Args:
            enhancement: Enhancement that the model expects.

        Raises:
            DatasetError: The images have another enhancement.
        """
        manifest_file.require_enhancement(self.folder, self.manifest, enhancement)


def is_dataset(path: str | Path) -> bool:
    """Return whether a path or a URL is the folder of a dataset."""
    try:
        return storage.is_file(parse_path(path) / manifest_file.NAME)
    except StorageError:
        return False
