"""Reading of a dataset's Parquet row groups with petastorm; no other module imports petastorm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.io.paths import get_filesystem, is_local
from fer_pipeline.learning.input.shuffle_buffer import Pixels
from fer_pipeline.text import one_line

# petastorm 0.12 was written for an older pyarrow. The current one warns at each call, even in
# petastorm's threads.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader

# Number of threads if the order of the rows need not be reproducible.
_UNORDERED_THREADS = 4
_QUEUED_ROW_GROUPS = 16
_MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Shard:
    """A part of the row groups of a split, for one of several workers.

    The row groups are assigned to the shards in turn: shard 0 of 2 has the first, third, fifth, ...

    Attributes:
        index: Index of the shard, in 0..count - 1.
        count: Number of shards.
    """

    index: int = 0
    count: int = 1


class ParquetReader:
    """A reader of the rows of a split, or of one shard of it, which checks the number of rows.

    Attributes:
        row_count: Number of rows that this reader delivers in one pass.
        split_row_count: Number of rows of the whole split.
    """

    def __init__(
        self, dataset: StoredDataset, split: Split, *, deterministic: bool, shard: Shard
    ) -> None:
        """List the files of a split, check their sizes, and count the rows of the shard.

        Args:
            dataset: Dataset to read.
            split: Split to read.
            deterministic: Whether equal seeds always give equal orders; then one thread reads.
            shard: Part of the row groups to read, if several workers share the split.

        Raises:
            DatasetError: The split is empty, a file is missing or damaged or has a different size
                than the manifest says, or the path contains a character that petastorm refuses.
        """
        files = dataset.require_split(split)
        folder = dataset.folder
        self._folder, self._split, self._image = folder, split, dataset.manifest.image
        paths = sorted(((folder / file.path).absolute() for file in files), key=str)
        unsupported = [letter for letter in "#?" if any(letter in str(path) for path in paths)]
        if unsupported:
            raise DatasetError(
                f"{folder}: petastorm reads no path with a {unsupported[0]}; rename the folder"
            )
        on_local_disk = is_local(folder)
        self._urls = [f"file://{path}" if on_local_disk else str(path) for path in paths]
        # petastorm passes the filesystem to a function of pyarrow that refuses fsspec filesystems.
        self._filesystem = None if on_local_disk else _wrap_filesystem(get_filesystem(folder))
        self._thread_count = 1 if deterministic else _UNORDERED_THREADS
        self._shard, self._shard_count = shard, shard.count
        self.split_row_count = self.row_count = sum(file.rows for file in files)
        if shard.count > 1:
            group_row_counts = self._read_and_check_group_row_counts(paths)
            self.row_count = sum(group_row_counts[shard.index :: shard.count])
            # petastorm refuses more shards than row groups. With as many shards as row groups, each
            # shard that has a row group keeps the same one.
            self._shard_count = min(shard.count, len(group_row_counts))

    def _read_and_check_group_row_counts(self, paths: Sequence[Path]) -> list[int]:
        """Read the number of rows of each row group, and check their total.

        Args:
            paths: Parquet files of the split.

        Returns:
            Number of rows of each row group, file by file in the order of `paths`.

        Raises:
            DatasetError: A file is damaged, or the number of rows differs from the manifest.
        """
        row_counts = []
        try:
            for path in paths:
                with path.open("rb") as file:
                    footer = pq.read_metadata(file)
                row_counts += [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self._folder}: a file of the {self._split} split is damaged ({one_line(error)});"
                " run preprocess again"
            ) from error
        if sum(row_counts) != self.split_row_count:
            raise DatasetError(
                f"{self._folder}: the files of the {self._split} split hold {sum(row_counts)}"
                f" rows, the manifest says {self.split_row_count}; run preprocess again"
            )
        return row_counts

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
            for row_group in (
                self._iterate_row_groups(columns, shuffle_seed) if self.row_count else ()
            ):
                pixels = self._decode_pixels(getattr(row_group, schema.IMAGE))
                delivered_row_count += len(pixels)
                yield pixels, {name: getattr(row_group, name) for name in columns}
        except DatasetError:
            raise
        except Exception as error:
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
    ) -> Iterator[Any]:
        """Read the row groups with petastorm and yield the columns of each one as a named tuple.

        Args:
            columns: Names of the columns to read in addition to the image.
            shuffle_seed: Seed of the order of the row groups; None for the stored order.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = make_batch_reader(
                self._urls,
                schema_fields=[f"^{name}$" for name in (schema.IMAGE, *columns)],
                workers_count=1 if shuffle_seed is None else self._thread_count,
                results_queue_size=_QUEUED_ROW_GROUPS,
                shuffle_row_groups=shuffle_seed is not None,
                seed=shuffle_seed,
                num_epochs=1,
                filesystem=self._filesystem,
                cur_shard=self._shard.index if self._shard_count > 1 else None,
                shard_count=self._shard_count if self._shard_count > 1 else None,
            )
        try:
            yield from reader
        finally:
            reader.stop()
            reader.join()

    def _decode_pixels(self, column: npt.NDArray[Any]) -> Pixels:
        """Convert the image column of a row group to pixels, uint8 of shape (n, size * size).

        If the dataset contains normalised float32 pixels, the original values are restored.

        Args:
            column: Content of the column, one entry per image: bytes, or float32 arrays.

        Raises:
            DatasetError: An image has a different size or format than the manifest says.
        """
        pixel_count = self._image.size**2
        pixel_counts = {None if image is None else len(image) for image in column}
        if pixel_counts != {pixel_count}:
            raise self._make_image_error(f"{pixel_count} pixels")
        if self._image.dtype == "float32":
            try:
                return self._image.normalization.restore_pixels(column)
            except ValueError as error:
                raise self._make_image_error(str(error)) from error
        return np.frombuffer(b"".join(column), np.uint8).reshape(len(column), pixel_count)

    def _make_image_error(self, detail: str) -> DatasetError:
        """Return the error for an image that does not have the size or format in the manifest.

        Args:
            detail: Description of the difference or of the expected image, for the message.
        """
        return DatasetError(
            f"{self._folder}: an image of the {self._split} split differs from the manifest:"
            f" {detail}; run preprocess again"
        )


def _wrap_filesystem(filesystem: Any) -> Any:
    """Wrap an fsspec filesystem so that petastorm can pass it to functions of pyarrow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyarrow.filesystem import S3FSWrapper

        return S3FSWrapper(filesystem)
