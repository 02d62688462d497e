"""A dataset on disk: its folder and its manifest as one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.manifest import FORMAT_VERSION, MANIFEST_FILE, DataFile, Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import DocumentFormat, read_document
from fer_pipeline.io.paths import parse_path

_FORMAT = DocumentFormat(
    version=FORMAT_VERSION,
    error_class=DatasetError,
    problem="is not a valid manifest",
    upgrade="run preprocess again",
)


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
        if not storage.is_file(folder / MANIFEST_FILE):
            problem = (
                f"holds no dataset (no {MANIFEST_FILE})"
                if storage.is_folder(folder)
                else "no such folder"
            )
            raise DatasetError(f"{folder}: {problem}; create one with the preprocess job")
        return cls(folder, read_document(folder / MANIFEST_FILE, Manifest, _FORMAT))

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
        return self.manifest.row_count(split)

    def require_split(self, split: Split) -> list[DataFile]:
        """Return the files of a split, which must have rows.

        Raises:
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        if not self.row_count(split):
            counts = ", ".join(f"{name} ({self.row_count(name)})" for name in Split)
            raise DatasetError(
                f"{self.folder}: the {split} split is empty; rows per split: {counts}"
            )
        files = self.manifest.files_in(split)
        for file in files:
            self._require_file(file)
        return files

    def require_all_files(self) -> None:
        """Check that the files of all splits exist and have the size that the manifest states.

        Raises:
            DatasetError: A file is missing or has another size.
        """
        for file in self.manifest.files:
            self._require_file(file)

    def require_enhancement(self, enhancement: Enhancement) -> None:
        """Check that the images were enhanced like the training images of a model.

        Args:
            enhancement: Enhancement that the model expects.

        Raises:
            DatasetError: The images have another enhancement.
        """
        stored = self.manifest.image.enhancement
        if stored != enhancement:
            raise DatasetError(
                f"{self.folder}: the enhancement of its images is {stored}, the model was trained"
                f" with {enhancement}; prepare the dataset with the model's image.enhancement"
            )

    def _require_file(self, file: DataFile) -> None:
        path = self.folder / file.path
        size = path.stat().st_size if storage.is_file(path) else None
        if size != file.bytes:
            state = "is missing" if size is None else f"has {size} bytes"
            raise DatasetError(
                f"{path}: {state}, the manifest says {file.bytes} bytes; run preprocess again"
            )


def is_dataset(path: str | Path) -> bool:
    """Return whether a path or a URL is the folder of a dataset."""
    try:
        return storage.is_file(parse_path(path) / MANIFEST_FILE)
    except StorageError:
        return False
