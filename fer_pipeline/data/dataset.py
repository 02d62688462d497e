"""A dataset on disk: its folder together with its manifest."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.manifest import FORMAT_VERSION, MANIFEST_FILE, DataFile, Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.input_reading import is_hadoop_url
from fer_pipeline.io.json_documents import DocumentFormat, read_document
from fer_pipeline.io.paths import parse_path

log = logging.getLogger(__name__)

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
        manifest: Content of the dataset's manifest, which lists the files of the dataset.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a dataset by reading its `manifest.json`; the Parquet files are not read.

        Args:
            path: Folder of the dataset, a local path or a URL.

        Raises:
            DatasetError: The folder is not a dataset, the dataset has a format version that this
                package does not read, or its `manifest.json` is invalid.
            StorageError: The folder cannot be reached.
        """
        folder = parse_path(path)
        if not storage.is_file(folder / MANIFEST_FILE):
            problem = "no such folder"
            if storage.is_folder(folder):
                problem = f"holds no dataset (no {MANIFEST_FILE})"
            elif storage.is_file(folder):
                problem = "is a file, not the folder of a dataset"
            raise DatasetError(f"{folder}: {problem}; create one with the preprocess job")
        return cls(folder, read_document(folder / MANIFEST_FILE, Manifest, _FORMAT))

    @property
    def name(self) -> str:
        """Name of the dataset's folder."""
        return self.folder.resolve().name

    @property
    def classes(self) -> list[str]:
        """Names of the emotions, in the order of their labels 0, 1, 2 and so on."""
        return self.manifest.classes

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.manifest.image.size

    @property
    def checksum(self) -> str:
        """Checksum of the dataset's content, 16 hexadecimal digits."""
        return self.manifest.checksum

    def row_count(self, split: Split) -> int:
        """Return the number of rows in a split."""
        return self.manifest.row_count(split)

    def require_split(self, split: Split) -> list[DataFile]:
        """Check that a split has rows and complete files, and return the files.

        Raises:
            DatasetError: The split is empty, or a file is missing or does not have the size that
                `manifest.json` states.
        """
        if not self.row_count(split):
            counts = ", ".join(f"{name} ({self.row_count(name)})" for name in Split)
            raise DatasetError(
                f"{self.folder}: the {split} split is empty; rows per split: {counts}"
            )
        files = self.manifest.files_in(split)
        for file in files:
            self._require_complete_file(file)
        return files

    def require_all_files(self) -> None:
        """Check that the files of all splits exist and have the sizes that `manifest.json` states.

        Raises:
            DatasetError: A file is missing or has a different size.
        """
        for file in self.manifest.files:
            self._require_complete_file(file)

    def warn_about_single_class(self, split: Split) -> None:
        """Log a warning if all images of a split have the same class; accuracies mean nothing then.

        Nothing is logged about an empty split.
        """
        counts = self.manifest.counts.get(split, {})
        present = [name for name, count in counts.items() if count]
        if len(present) == 1:
            log.warning(
                "%s: all images of the %s split are of one class, %s; a constant prediction has an"
                " accuracy of 100 %% there",
                self.folder,
                split,
                present[0],
            )

    def require_enhancement(self, enhancement: Enhancement) -> None:
        """Check that the images were enhanced in the same way as a model's training images.

        Args:
            enhancement: Operations (such as histogram equalisation) that were applied to the images
                on which the model was trained.

        Raises:
            DatasetError: The images of this dataset were enhanced differently.
        """
        stored = self.manifest.image.enhancement
        if stored != enhancement:
            raise DatasetError(
                f"{self.folder}: the enhancement of its images is {stored}, the model was trained"
                f" with {enhancement}; prepare the dataset with the model's image.enhancement"
            )

    def _require_complete_file(self, file: DataFile) -> None:
        """Check that a file exists and has the size that `manifest.json` states.

        Raises:
            DatasetError: The file is missing or has a different size.
        """
        path = self.folder / file.path
        byte_count = path.stat().st_size if storage.is_file(path) else None
        if byte_count != file.bytes:
            state = "is missing" if byte_count is None else f"has {byte_count} bytes"
            raise DatasetError(
                f"{path}: {state}, the manifest says {file.bytes} bytes; run preprocess again"
            )


def find_dataset(locations: Iterable[str]) -> str | None:
    """Return the first location that is a dataset; URLs that only Hadoop reads are not looked at.

    Args:
        locations: Local paths and URLs.
    """
    candidates = (location for location in locations if not is_hadoop_url(location))
    return next(filter(is_dataset, candidates), None)


def is_dataset(path: str | Path) -> bool:
    """Return whether a folder contains `manifest.json`; the content of this file is not checked.

    Args:
        path: Folder, a local path or a URL. The result is false for a folder that cannot be
            reached.
    """
    try:
        return storage.is_file(parse_path(path) / MANIFEST_FILE)
    except StorageError:
        return False
