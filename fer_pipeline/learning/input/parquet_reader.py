"""Row groups of a dataset, read with petastorm: the only module that imports it."""

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

# petastorm 0.12 was written for an older pyarrow, which warns at each call, in its threads too.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader

_UNORDERED_THREADS = 4
_QUEUED_ROW_GROUPS = 16
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Shard:
    """A part of the rows of a split; row groups are assigned to the shards in turn.

    Attributes:
        index: Number of the shard, 0..count - 1.
        count: Number of shards.
    """

    index: int = 0
    count: int = 1


class ParquetReader:
    """Reader of a split, or of a shard of it, that counts the rows that it delivers.

    Attributes:
        row_count: Rows of one pass.
        split_row_count: Rows of one pass of all shards together.
    """

    def __init__(
        self, dataset: StoredDataset, split: Split, *, deterministic: bool, shard: Shard
    ) -> None:
        """Open the files of a split; `BatchLoader` describes the arguments.

        Raises:
            DatasetError: The split is empty, or a file is missing, has another size or is damaged.
        """
        files = dataset.require_split(split)
        folder = dataset.folder
        self._folder, self._split, self._image = folder, split, dataset.manifest.image
        paths = sorted(((folder / file.path).absolute() for file in files), key=str)
        refused = [letter for letter in "#?" if any(letter in str(path) for path in paths)]
        if refused:
            raise DatasetError(
                f"{folder}: petastorm reads no path with a {refused[0]}; rename the folder"
            )
        on_local_disk = is_local(folder)
        self._urls = [f"file://{path}" if on_local_disk else str(path) for path in paths]
        # petastorm passes it to a part of pyarrow that does not accept an fsspec filesystem.
        self._filesystem = None if on_local_disk else _wrap_filesystem(get_filesystem(folder))
        self._threads = 1 if deterministic else _UNORDERED_THREADS
        self._shard, self._shard_count = shard, shard.count
        self.split_row_count = self.row_count = sum(file.rows for file in files)
        if shard.count > 1:
            group_rows = self._read_row_group_sizes(paths)
            self.row_count = sum(group_rows[shard.index :: shard.count])
            # petastorm refuses to have more shards than row groups. The shards that get a row group
            # get the same one if they are the only shards.
            self._shard_count = min(shard.count, len(group_rows))

    def _read_row_group_sizes(self, paths: Sequence[Path]) -> list[int]:
        """Return the number of rows of each row group, file by file."""
        sizes = []
        try:
            for path in paths:
                with path.open("rb") as file:
                    footer = pq.read_metadata(file)
                sizes += [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self._folder}: a file of the {self._split} split is damaged ({one_line(error)});"
                " run preprocess again"
            ) from error
        if sum(sizes) != self.split_row_count:
            raise DatasetError(
                f"{self._folder}: the files of the {self._split} split hold {sum(sizes)} rows, the"
                f" manifest says {self.split_row_count}; run preprocess again"
            )
        return sizes

    def read_row_groups(
        self, columns: Sequence[str], shuffle_seed: int | None
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """Yield the rows of one pass, one row group after the other.

        Args:
            columns: Names of the columns to read beside the image.
            shuffle_seed: Seed of the order of the row groups; None for the stored order.

        Yields:
            Flat pixels, uint8 of shape (n, size * size), and the columns, each of length n.

        Raises:
            DatasetError: The number of rows or the images differ from the manifest, or a file
                cannot be read.
        """
        delivered = 0
        try:
            for row_group in self._read(columns, shuffle_seed) if self.row_count else ():
                pixels = self._decode_pixels(getattr(row_group, schema.IMAGE))
                delivered += len(pixels)
                yield pixels, {name: getattr(row_group, name) for name in columns}
        except DatasetError:
            raise
        except Exception as error:
            # petastorm raises any exception of its threads, under any name.
            reason = one_line(f"{type(error).__name__}: {error}")[:_REASON_CHARACTERS]
            raise DatasetError(
                f"{self._folder}: the {self._split} split cannot be read ({reason});"
                " run preprocess again"
            ) from error
        if delivered != self.row_count:
            raise DatasetError(
                f"{self._folder}: an epoch of the {self._split} split delivered {delivered} rows,"
                f" the manifest says {self.row_count}; run preprocess again"
            )

    def _read(self, columns: Sequence[str], shuffle_seed: int | None) -> Iterator[Any]:
        """Yield petastorm's named tuple of columns for each row group."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = make_batch_reader(
                self._urls,
                schema_fields=[f"^{name}$" for name in (schema.IMAGE, *columns)],
                workers_count=1 if shuffle_seed is None else self._threads,
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
        area = self._image.size**2
        lengths = {None if image is None else len(image) for image in column}
        if lengths != {area}:
            raise self._make_image_error(f"{area} pixels")
        if self._image.dtype == "float32":
            try:
                return self._image.normalization.restore_pixels(column)
            except ValueError as error:
                raise self._make_image_error(str(error)) from error
        return np.frombuffer(b"".join(column), np.uint8).reshape(len(column), area)

    def _make_image_error(self, expected: str) -> DatasetError:
        return DatasetError(
            f"{self._folder}: an image of the {self._split} split differs from the manifest:"
            f" {expected}; run preprocess again"
        )


def _wrap_filesystem(filesystem: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyarrow.filesystem import S3FSWrapper

        return S3FSWrapper(filesystem)
