"""Reading of a dataset's row groups with petastorm or pyarrow, with checks of what they hold."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from fer_pipeline.config.schema import ReaderName
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.extras import explain_missing_packages
from fer_pipeline.learning.input import row_groups
from fer_pipeline.learning.input.row_groups import (
    Columns,
    RowGroup,
    Shard,
    UnequalLengthsError,
)
from fer_pipeline.learning.input.shuffle_buffer import Pixels
from fer_pipeline.text import one_line

_log = logging.getLogger(__name__)

# Number of threads if the order of the rows does not depend on it, or need not be reproducible.
_THREADS = 4
_MAX_REASON_CHARACTERS = 300


class ParquetReader:
    """A reader of the rows of a split, or of one shard of it, which checks the number of rows.

    Attributes:
        row_count: Number of rows that this reader delivers in one pass.
        split_row_count: Number of rows of the whole split.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        split: Split,
        *,
        deterministic: bool,
        shard: Shard,
        reader: ReaderName,
    ) -> None:
        """List the files of a split, check their sizes, and count the rows of the shard.

        Args:
            dataset: Dataset to read.
            split: Split to read.
            deterministic: Whether equal seeds always give equal orders; then petastorm reads with
                one thread. pyarrow's order depends on the seed alone.
            shard: Part of the row groups to read, if several workers share the split.
            reader: Package that reads the files. The orders of both are equal. pyarrow takes the
                place of a petastorm that cannot be imported.

        Raises:
            DatasetError: The split is empty, a file is missing or damaged or has a different size
                than the manifest says, or the path contains a character that petastorm refuses.
        """
        files = dataset.require_split(split)
        folder = dataset.folder
        self._folder, self._split, self._image = folder, split, dataset.manifest.image
        self._paths = sorted(((folder / file.path).absolute() for file in files), key=str)
        self._deterministic, self._shard = deterministic, shard
        self._petastorm_reader = _import_petastorm_reader() if reader == "petastorm" else None
        if self._petastorm_reader is not None:
            self._require_supported_paths(self._petastorm_reader.UNSUPPORTED_CHARACTERS)
        self.split_row_count = self.row_count = sum(file.rows for file in files)
        if shard.count > 1:
            shard_groups = self._row_groups[shard.index :: shard.count]
            self.row_count = sum(row_group.row_count for row_group in shard_groups)

    def _require_supported_paths(self, unsupported_characters: str) -> None:
        """Raise a DatasetError if a path contains a character that petastorm refuses."""
        for letter in unsupported_characters:
            if any(letter in str(path) for path in self._paths):
                raise DatasetError(
                    f"{self._folder}: petastorm reads no path with a {letter}; rename the folder,"
                    " or set loader.reader=pyarrow"
                )

    @functools.cached_property
    def _row_groups(self) -> list[RowGroup]:
        """All row groups of the split, file by file.

        Raises:
            DatasetError: A file is damaged, or the number of rows differs from the manifest.
        """
        try:
            listed_groups = row_groups.list_row_groups(self._paths)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self._folder}: a file of the {self._split} split is damaged ({one_line(error)});"
                " run preprocess again"
            ) from error
        row_count = sum(row_group.row_count for row_group in listed_groups)
        if row_count != self.split_row_count:
            raise DatasetError(
                f"{self._folder}: the files of the {self._split} split hold {row_count}"
                f" rows, the manifest says {self.split_row_count}; run preprocess again"
            )
        return listed_groups

    def read_row_groups(
        self, columns: Sequence[str], shuffle_seed: int | None
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """Yield all rows of the split or shard, row group by row group, and check their number.

        Args:
            columns: Names of the columns to read in addition to the image.
            shuffle_seed: Seed of the order of the row groups; None for the stored order.

        Yields:
            Flattened pixels, uint8 of shape (n, size * size), and the columns, each of length n.

        Raises:
            DatasetError: The number of rows, or an image, is not as stated in the manifest, or a
                file cannot be read.
        """
        delivered_row_count = 0
        try:
            # No variable holds the iterator, because the traceback of an error would keep it open.
            for row_group in self._iterate_row_groups(columns, shuffle_seed):
                pixels = self._restore_pixels(row_group[schema.IMAGE])
                delivered_row_count += len(pixels)
                yield pixels, {name: row_group[name] for name in columns}
        except DatasetError:
            raise
        except Exception as error:
            if isinstance(error, UnequalLengthsError) and error.column == schema.IMAGE:
                raise self._make_image_error(f"{self._image.size**2} pixels") from error
            # petastorm raises the exceptions of its threads, which can be of any class.
            reason = one_line(f"{type(error).__name__}: {error}")[:_MAX_REASON_CHARACTERS]
            raise DatasetError(
                f"{self._folder}: the {self._split} split cannot be read ({reason});"
                " run preprocess again"
            ) from error
        if delivered_row_count != self.row_count:
            raise DatasetError(
                f"{self._folder}: an epoch of the {self._split} split delivered"
                f" {delivered_row_count} rows, the manifest says {self.row_count};"
                " run preprocess again"
            )

    def _iterate_row_groups(
        self, columns: Sequence[str], shuffle_seed: int | None
    ) -> Iterator[Columns]:
        """Return an iterator over the columns of each row group of the shard.

        Args:
            columns: Names of the columns to read in addition to the image.
            shuffle_seed: Seed of the order of the row groups; None for the stored order.
        """
        names = (schema.IMAGE, *columns)
        if not self.row_count:
            return iter(())
        if self._petastorm_reader is None:
            order = row_groups.order_row_groups(len(self._row_groups), shuffle_seed, self._shard)
            ordered_groups = [self._row_groups[index] for index in order]
            return row_groups.read_row_groups(ordered_groups, names, _THREADS)
        shard = self._shard
        if shard.count > 1:
            # petastorm refuses more shards than row groups. With as many shards as row groups, each
            # shard that has a row group keeps the same one.
            shard = Shard(shard.index, min(shard.count, len(self._row_groups)))
        is_ordered = shuffle_seed is None or self._deterministic
        return self._petastorm_reader.read_row_groups(
            self._paths,
            names,
            seed=shuffle_seed,
            shard=shard,
            thread_count=1 if is_ordered else _THREADS,
        )

    def _restore_pixels(self, images: npt.NDArray[Any]) -> Pixels:
        """Return the pixels of a row group's images, uint8 of shape (n, size * size).

        If the dataset contains normalised float32 pixels, the original values are restored.

        Args:
            images: The image column: pixels, uint8, or normalised values, float32.

        Raises:
            DatasetError: The images have a different size or format than the manifest says.
        """
        if images.shape[1:] != (self._image.size**2,):
            raise self._make_image_error(f"{self._image.size**2} pixels")
        if images.dtype != self._image.dtype:
            raise self._make_image_error(f"values of type {self._image.dtype}")
        if images.dtype == "uint8":
            return images
        try:
            return self._image.normalization.restore_pixels(images)
        except ValueError as error:
            raise self._make_image_error(str(error)) from error

    def _make_image_error(self, detail: str) -> DatasetError:
        """Return the error for an image that does not have the size or format in the manifest.

        Args:
            detail: Description of the difference or of the expected image, for the message.
        """
        return DatasetError(
            f"{self._folder}: an image of the {self._split} split differs from the manifest:"
            f" {detail}; run preprocess again"
        )


@functools.cache
def _import_petastorm_reader() -> ModuleType | None:
    """Import the module that reads with petastorm; if that fails, log once why pyarrow reads."""
    try:
        with explain_missing_packages():
            from fer_pipeline.learning.input import petastorm_reader
    except Exception as error:
        # With untested versions of its dependencies, petastorm can raise any exception.
        _log.warning(
            "petastorm cannot be imported (%s); pyarrow reads the dataset instead, in the same"
            " order",
            one_line(f"{type(error).__name__}: {error}")[:_MAX_REASON_CHARACTERS],
        )
        return None
    return petastorm_reader
