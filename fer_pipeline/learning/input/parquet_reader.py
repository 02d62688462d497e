"""A dataset's rows, a row group at a time. The one module that imports petastorm."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.data import manifest, schema
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.io.paths import get_filesystem, is_local
from fer_pipeline.learning.input.shuffle_buffer import Pixels

# petastorm 0.12 is written for an older pyarrow, which says so at every turn, in its threads too.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader

_FAST_WORKERS = 4
_RAW_QUEUE = 16


class ParquetReader:
    """Reads a split, or a part of it, and counts what it delivers.

    Attributes:
        manifest: Of the dataset.
        rows: How many rows a pass delivers.
        split_rows: How many the passes of all shards deliver together.
    """

    def __init__(
        self, folder: Path, split: Split, *, deterministic: bool, shard: int, shards: int
    ) -> None:
        """Opens a split; see `Feed` for the arguments.

        Raises:
            DatasetError: The folder is no dataset, the split is empty, a file is missing or of
                another length.
        """
        self.manifest = manifest.read(folder)
        files = manifest.require(folder, self.manifest, split)
        self._folder, self._split = folder, split
        paths = sorted(((folder / file.path).absolute() for file in files), key=str)
        odd = [letter for letter in "#?" if any(letter in str(path) for path in paths)]
        if odd:
            raise DatasetError(f"{folder}: petastorm reads no path with a {odd[0]}; rename it")
        local = is_local(folder)
        self._urls = [f"file://{path}" if local else str(path) for path in paths]
        # petastorm hands it to a part of pyarrow that takes none of fsspec's as it is.
        self._filesystem = None if local else _wrapped(get_filesystem(folder))
        self._workers = 1 if deterministic else _FAST_WORKERS
        self._shard, self._shards = shard, shards
        self.split_rows = self.rows = sum(file.rows for file in files)
        if shards > 1:
            self.rows = self._rows_of_shard(paths)

    def _rows_of_shard(self, paths: Sequence[Path]) -> int:
        groups = []
        try:
            for path in paths:
                with path.open("rb") as file:
                    footer = pq.read_metadata(file)
                numbers = range(footer.num_row_groups)
                groups += [footer.row_group(index).num_rows for index in numbers]
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                f"{self._folder}: a file of the {self._split} split is damaged ({reason});"
                " run preprocess again"
            ) from error
        if sum(groups) != self.split_rows:
            raise DatasetError(
                f"{self._folder}: the files of the {self._split} split hold {sum(groups)} rows, the"
                f" manifest says {self.split_rows}; run preprocess again"
            )
        rows = sum(groups[self._shard :: self._shards])
        # petastorm refuses to deal out fewer row groups than there are shards. Those that get one
        # are dealt the same if they are the only ones.
        self._shards = min(self._shards, len(groups))
        return rows

    def chunks(
        self, columns: Sequence[str], order: int | None
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """One pass over the rows, one row group after the other.

        Args:
            columns: What is wanted of each row beside its image.
            order: The seed of the order of row groups; None for that in which they are stored.

        Yields:
            Flat pixels, uint8 of shape (n, size * size), and the columns, each of length n.

        Raises:
            DatasetError: Not exactly the rows of the manifest were delivered, or what was read is
                not what the manifest says.
        """
        delivered = 0
        try:
            for chunk in self._row_groups(columns, order) if self.rows else ():
                pixels = self._pixels(getattr(chunk, schema.IMAGE))
                delivered += len(pixels)
                yield pixels, {name: getattr(chunk, name) for name in columns}
        except DatasetError:
            raise
        except Exception as error:
            # petastorm raises whatever its threads came upon, under any name.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise DatasetError(
                f"{self._folder}: the {self._split} split cannot be read ({reason[:300]});"
                " run preprocess again"
            ) from error
        if delivered != self.rows:
            raise DatasetError(
                f"{self._folder}: an epoch of the {self._split} split delivered {delivered} rows,"
                f" the manifest says {self.rows}; run preprocess again"
            )

    def _row_groups(self, columns: Sequence[str], order: int | None) -> Iterator[Any]:
        """What petastorm makes of each row group: a named tuple of columns."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = make_batch_reader(
                self._urls,
                schema_fields=[f"^{name}$" for name in (schema.IMAGE, *columns)],
                workers_count=self._workers if order is not None else 1,
                results_queue_size=_RAW_QUEUE,
                shuffle_row_groups=order is not None,
                seed=order,
                num_epochs=1,
                filesystem=self._filesystem,
                cur_shard=self._shard if self._shards > 1 else None,
                shard_count=self._shards if self._shards > 1 else None,
            )
        try:
            yield from reader
        finally:
            reader.stop()
            reader.join()

    def _pixels(self, column: npt.NDArray[Any]) -> Pixels:
        image = self.manifest.image
        area = image.size**2
        lengths = {None if value is None else len(value) for value in column}
        if lengths != {area}:
            raise DatasetError(
                f"{self._folder}: an image of the {self._split} split is not what the manifest"
                f" says: {area} pixels; run preprocess again"
            )
        if image.dtype == "float32":
            try:
                return image.normalization.restore(column)
            except ValueError as error:
                raise DatasetError(
                    f"{self._folder}: an image of the {self._split} split is not what the manifest"
                    f" says: {error}"
                ) from error
        return np.frombuffer(b"".join(column), np.uint8).reshape(len(column), area)


def _wrapped(filesystem: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyarrow.filesystem import S3FSWrapper

        return S3FSWrapper(filesystem)
