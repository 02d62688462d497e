"""From a dataset on disk to batches in TensorFlow. The one module that imports petastorm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import tensorflow as tf

from fer_pipeline import manifest, schema
from fer_pipeline.accounting import Split
from fer_pipeline.errors import DatasetError

# petastorm 0.12 is written for an older pyarrow, which says so at every turn, in its threads too.
warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_batch_reader

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]

_FAST_WORKERS = 4
_RAW_QUEUE = 16
_PREFETCH = 8


class Feed:
    """A split of a dataset as batches, one epoch after the other.

    Attributes:
        rows: How many rows an epoch delivers.
        steps: How many batches those are, the last perhaps a smaller one.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        deterministic: bool = True,
        cache: str = "none",
        shuffle_buffer: int = 16384,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        """Opens a split.

        Args:
            folder: The dataset's folder.
            split: The split.
            batch_size: Images in a batch.
            shuffle: Whether to mix the rows, in another order each epoch.
            seed: Of the order.
            deterministic: Whether a seed always gives the same order: then one thread reads.
            cache: `memory` keeps the decoded pixels after the first pass, `none` does not.
            shuffle_buffer: Images that are mixed at a time; with a cache all are.
            shard: Which part of the rows this feed delivers, 0..shards - 1.
            shards: How many such parts there are: row groups are shared out in turn.

        Raises:
            DatasetError: The folder is no dataset, the split is empty, a file is missing or of
                another length, or there are fewer row groups than shards.
        """
        self._manifest = manifest.read(folder)
        files = manifest.require(folder, self._manifest, split)
        self._folder, self._split = folder, split
        paths = sorted(str((folder / file.path).absolute()) for file in files)
        self._urls = [f"file://{path}" for path in paths]
        self._batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._workers = 1 if deterministic else _FAST_WORKERS
        self._buffer = shuffle_buffer
        self._shard, self._shards = shard, shards
        self._table = self._manifest.image.normalization.table()
        self._keep = cache == "memory"
        self._kept: tuple[Pixels, Labels] | None = None
        self.rows = sum(file.rows for file in files)
        if shards > 1:
            self.rows = self._rows_of_shard(paths)
        self.steps = -(-self.rows // batch_size)

    def _rows_of_shard(self, paths: Sequence[str]) -> int:
        groups = [
            footer.row_group(index).num_rows
            for footer in map(pq.read_metadata, paths)
            for index in range(footer.num_row_groups)
        ]
        if len(groups) < self._shards:
            raise DatasetError(
                f"{self._folder}: the {self._split} split has {len(groups)} row groups for"
                f" {self._shards} readers; make more with output.row_group_rows"
            )
        return sum(groups[self._shard :: self._shards])

    def epoch(self, number: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """One pass over the rows.

        Args:
            number: Which one, from 0: each has an order of its own.

        Yields:
            Images, float32 of shape (n, size, size, 1), normalised, and labels, int32 of shape
            (n,); n is the batch size but for the last batch.

        Raises:
            DatasetError: Not exactly the rows of the manifest were delivered, or what was read is
                not what the manifest says.
        """
        failures: list[Exception] = []
        try:
            yield from self._dataset(number, failures)
        except tf.errors.OpError:
            # TensorFlow wraps what the generator raised in a stack of its own.
            if not failures:
                raise
        if failures:
            raise failures[0]

    def dataset(self, number: int) -> tf.data.Dataset:
        """The same pass as a `tf.data.Dataset`.

        An error of ours reaches its reader as one of TensorFlow's, with our message in it.

        Args:
            number: Which epoch, from 0.
        """
        return self._dataset(number, [])

    def _dataset(self, number: int, failures: list[Exception]) -> tf.data.Dataset:
        size = self._manifest.image.size

        def batches() -> Iterator[tuple[npt.NDArray[np.float32], Labels]]:
            try:
                for pixels, labels in self._batches(number):
                    # A lookup of each pixel in the one table of normalised values.
                    values: Any = cv2.LUT(pixels, self._table)
                    yield values.reshape(-1, size, size, 1), labels
            except Exception as error:
                failures.append(error)
                raise

        signature = (
            tf.TensorSpec((None, size, size, 1), tf.float32),
            tf.TensorSpec((None,), tf.int32),
        )
        made = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return made.prefetch(_PREFETCH)

    def raw(self, columns: Sequence[str]) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """All rows in the order in which they are stored, as pixels.

        Args:
            columns: What else is wanted of each row.

        Yields:
            Pixels, uint8 of shape (n, size, size), and the columns, each of length n.

        Raises:
            DatasetError: As in `epoch`.
        """
        size = self._manifest.image.size
        for pixels, others in self._chunks(columns, order=None):
            for start in range(0, len(pixels), self._batch_size):
                part = slice(start, start + self._batch_size)
                yield (
                    pixels[part].reshape(-1, size, size),
                    {name: others[name][part] for name in columns},
                )

    def _batches(self, number: int) -> Iterator[tuple[Pixels, Labels]]:
        """Batches of flat pixels, uint8 of shape (n, size * size), and labels."""
        order = self._epoch_seed(number) if self._shuffle else None
        rng = np.random.default_rng([self._seed, number])
        if self._keep:
            pixels, labels = self._in_memory()
            rows = rng.permutation(self.rows) if self._shuffle else np.arange(self.rows)
            for start in range(0, self.rows, self._batch_size):
                part = rows[start : start + self._batch_size]
                yield pixels[part], labels[part]
            return
        chunks = (
            (pixels, others[schema.LABEL])
            for pixels, others in self._chunks([schema.LABEL], order=order)
        )
        # Without shuffling a buffer of one batch is a queue.
        size = self._buffer if self._shuffle else self._batch_size
        yield from _mixed(chunks, max(size, self._batch_size), self._batch_size, self._pick(rng))

    def _pick(self, rng: np.random.Generator) -> Callable[[int, int], npt.NDArray[np.int64]]:
        if not self._shuffle:
            return lambda rows, count: np.arange(count)
        return lambda rows, count: rng.choice(rows, count, replace=False)

    def _in_memory(self) -> tuple[Pixels, Labels]:
        if self._kept is None:
            parts = [
                (pixels, others[schema.LABEL])
                for pixels, others in self._chunks([schema.LABEL], order=None)
            ]
            self._kept = (
                np.concatenate([pixels for pixels, _ in parts]),
                np.concatenate([labels for _, labels in parts]),
            )
        return self._kept

    def _epoch_seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])

    def _chunks(
        self, columns: Sequence[str], order: int | None
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """One row group after the other: flat pixels and other columns. Counts what it delivers."""
        area = self._manifest.image.size**2
        workers = self._workers if order is not None else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = make_batch_reader(
                self._urls,
                schema_fields=[f"^{name}$" for name in (schema.IMAGE, *columns)],
                workers_count=workers,
                results_queue_size=_RAW_QUEUE,
                shuffle_row_groups=order is not None,
                seed=order,
                num_epochs=1,
                cur_shard=self._shard if self._shards > 1 else None,
                shard_count=self._shards if self._shards > 1 else None,
            )
        delivered = 0
        try:
            for chunk in reader:
                pixels = self._pixels(getattr(chunk, schema.IMAGE), area)
                delivered += len(pixels)
                yield pixels, {name: getattr(chunk, name) for name in columns}
        finally:
            reader.stop()
            reader.join()
        if delivered != self.rows:
            raise DatasetError(
                f"{self._folder}: an epoch of the {self._split} split delivered {delivered} rows,"
                f" the manifest says {self.rows}; run preprocess again"
            )

    def _pixels(self, column: npt.NDArray[Any], area: int) -> Pixels:
        try:
            if self._manifest.image.dtype == "float32":
                return self._manifest.image.normalization.restore(column)
            return np.frombuffer(b"".join(column), np.uint8).reshape(len(column), area)
        except ValueError as error:
            raise DatasetError(
                f"{self._folder}: an image of the {self._split} split is not what the manifest"
                f" says: {error}"
            ) from error


def _mixed(
    chunks: Iterator[tuple[Pixels, Labels]],
    capacity: int,
    batch_size: int,
    pick: Callable[[int, int], npt.NDArray[np.int64]],
) -> Iterator[tuple[Pixels, Labels]]:
    """Batches from a buffer that is always full: what goes out makes room for what comes in.

    Args:
        chunks: Flat pixels and labels.
        capacity: How many rows the buffer holds, at least a batch.
        batch_size: Rows in a batch.
        pick: From the number of rows in the buffer and how many are wanted to their places.
    """
    pixels, labels, free = None, np.empty(capacity, np.int32), np.arange(capacity)
    for new_pixels, new_labels in chunks:
        if pixels is None:
            pixels = np.empty((capacity, new_pixels.shape[1]), np.uint8)
        taken = 0
        while taken < len(new_labels):
            places = free[: len(new_labels) - taken]
            free = free[len(places) :]
            pixels[places] = new_pixels[taken : taken + len(places)]
            labels[places] = new_labels[taken : taken + len(places)]
            taken += len(places)
            if not len(free):
                free = pick(capacity, batch_size)
                yield pixels[free], labels[free]
    if pixels is None:
        return
    left = np.setdiff1d(np.arange(capacity), free)
    left = left[pick(len(left), len(left))]
    for start in range(0, len(left), batch_size):
        part = left[start : start + batch_size]
        yield pixels[part], labels[part]
