"""From a dataset on disk to batches in TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline import schema
from fer_pipeline.accounting import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.data.mixing import Labels, Pixels, mixed
from fer_pipeline.learning.data.reading import Reader
from fer_pipeline.pixels import Normalization

Transform = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""From images, float32 0..255 of shape (n, size, size, 1), labels (or distributions) and a seed,
int64 of shape (2,), to images and labels: the seed is all its randomness."""

NO_ROW = -1
"""The label of an image that is none: it fills a batch that would be empty, and does not count."""

_PREFETCH = 8
_ROWS_AT_ONCE = 1024


class Epoch:
    """One pass over a split, under way.

    Attributes:
        iterator: Gives the batches, in Python and in a `tf.function`.
    """

    def __init__(self, dataset: tf.data.Dataset, failures: list[Exception]) -> None:
        """Takes the batches, and where what goes wrong in reading them is noted."""
        self.iterator = iter(dataset)
        self._failures = failures

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Around taking batches: TensorFlow wraps what reading raised in a stack of its own.

        Raises:
            DatasetError: What went wrong in reading.
        """
        try:
            yield
        except tf.errors.OpError:
            if not self._failures:
                raise
            raise self._failures[0] from None

    def finish(self) -> None:
        """After the last batch: makes sure that it was, and that every row came.

        Raises:
            DatasetError: Not exactly the rows of the manifest were delivered.
        """
        with self.errors():
            # Where there is more than the manifest says, all of it has to come to be counted.
            for _ in self.iterator:
                pass
        if self._failures:
            raise self._failures[0]


class Feed:
    """A split of a dataset as batches, one epoch after the other.

    One of several shards delivers its part of each of the batches: as many parts as the other
    shards, of nearly the same size, whatever it holds.

    Attributes:
        rows: How many rows an epoch delivers.
        split_rows: How many the epochs of all shards deliver together.
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
        cache_in_memory: bool = False,
        shuffle_buffer: int = 16384,
        shard: int = 0,
        shards: int = 1,
        soft: bool = False,
        transform: Transform | None = None,
    ) -> None:
        """Opens a split.

        Args:
            folder: The dataset's folder.
            split: The split.
            batch_size: Images in a batch, of all shards together.
            shuffle: Whether to mix the rows, in another order each epoch.
            seed: Of the order.
            deterministic: Whether a seed always gives the same order: then one thread reads.
            cache_in_memory: Whether to keep the decoded pixels after the first pass.
            shuffle_buffer: Images that are mixed at a time; with a cache all are.
            shard: Which part of the rows this feed delivers, 0..shards - 1.
            shards: How many such parts there are: row groups are shared out in turn.
            soft: Whether to deliver the distributions over the classes, where the dataset has
                them, in place of labels.
            transform: What each batch is changed by before it is normalised.

        Raises:
            DatasetError: The folder is no dataset, the split is empty, a file is missing or of
                another length, or a shard that is shuffled has fewer rows than there are batches.
        """
        self._reader = Reader(
            folder, split, deterministic=deterministic, shard=shard, shards=shards
        )
        self._manifest, self.rows = self._reader.manifest, self._reader.rows
        self.split_rows = self._reader.split_rows
        self._batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._shard, self._shards = shard, shards
        self._buffer = shuffle_buffer
        self._transform = transform
        self._target = schema.VOTES if soft and self._manifest.labels.distribution else schema.LABEL
        _require_table(self._manifest.image.normalization)
        self._keep = cache_in_memory
        self._kept: tuple[Pixels, Labels] | None = None
        self.steps = -(-self.split_rows // batch_size)
        if shuffle and self.rows < self.steps:
            raise DatasetError(
                f"{folder}: reader {shard + 1} of {shards} has {self.rows} rows of the {split}"
                f" split for {self.steps} batches; make more and smaller row groups with"
                " output.row_group_rows, or take fewer workers"
            )

    def epoch(self, number: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """One pass over the rows.

        Args:
            number: Which one, from 0: each has an order of its own.

        Yields:
            Images, float32 of shape (n, size, size, 1), normalised, and labels, int32 of shape
            (n,), or distributions, float32 of shape (n, classes); n is the batch size but for the
            last batch.

        Raises:
            DatasetError: Not exactly the rows of the manifest were delivered, or what was read is
                not what the manifest says.
        """
        epoch = self.open(number)
        with epoch.errors():
            yield from epoch.iterator
        epoch.finish()

    def open(self, number: int, skip: int = 0) -> Epoch:
        """Begins a pass over the rows, for a loop that takes its batches within TensorFlow.

        Args:
            number: Which one, from 0: each has an order of its own.
            skip: How many batches to leave out, because they were taken before.
        """
        failures: list[Exception] = []
        return Epoch(self._dataset(number, failures, skip), failures)

    def dataset(self, number: int) -> tf.data.Dataset:
        """The same pass as a `tf.data.Dataset`.

        An error of ours reaches its reader as one of TensorFlow's, with our message in it.

        Args:
            number: Which epoch, from 0.
        """
        return self._dataset(number, [])

    def _dataset(self, number: int, failures: list[Exception], skip: int = 0) -> tf.data.Dataset:
        def chunks() -> Iterator[tuple[Pixels, Labels]]:
            try:
                yield from self._ordered(number)
                yield from self._filling()
            except Exception as error:
                failures.append(error)
                raise

        made = tf.data.Dataset.from_generator(chunks, output_signature=self._signature())
        # Rows come from Python many at a time, because each time costs as much as a small batch;
        # and as bytes, because floats are four times as much to move.
        batches = made.rebatch(self._sizes()).enumerate().skip(skip)
        seed = tf.constant(self._epoch_seed(number), tf.int64)
        finished = batches.map(
            lambda index, rows: self._finished(rows[0], rows[1], tf.stack([seed, index]))
        )
        return finished.prefetch(_PREFETCH)

    def _sizes(self) -> int | list[int]:
        """How many rows each batch has: of one shard of several, its share of each."""
        if self._shards == 1:
            return self._batch_size
        rows = max(self.rows, self.steps)
        ends = [rows * step // self.steps for step in range(self.steps + 1)]
        return [end - start for start, end in itertools.pairwise(ends)]

    def _filling(self) -> Iterator[tuple[Pixels, Labels]]:
        """What a shard with fewer rows than batches has in the last of them.

        TensorFlow's convolutions take no empty batch on every processor.
        """
        empty = self.steps - self.rows
        if empty > 0:
            yield (
                np.zeros((empty, self._manifest.image.size**2), np.uint8),
                np.full(empty, NO_ROW, np.int32),
            )

    def _signature(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        labels = tf.TensorSpec((None,), tf.int32)
        if self._target == schema.VOTES:
            labels = tf.TensorSpec((None, len(self._manifest.classes)), tf.float32)
        return tf.TensorSpec((None, self._manifest.image.size**2), tf.uint8), labels

    def _finished(
        self, pixels: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        size = self._manifest.image.size
        images = tf.cast(tf.reshape(pixels, (-1, size, size, 1)), tf.float32)
        if self._transform:
            images, labels = self._transform(images, labels, seed)
        return _values(images, self._manifest.image.normalization), labels

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
        for pixels, others in self._reader.chunks(columns, order=None):
            for start in range(0, len(pixels), self._batch_size):
                part = slice(start, start + self._batch_size)
                yield (
                    pixels[part].reshape(-1, size, size),
                    {name: others[name][part] for name in columns},
                )

    def _ordered(self, number: int) -> Iterator[tuple[Pixels, Labels]]:
        """The rows of an epoch, in its order: flat pixels, uint8 of shape (n, area), and labels."""
        step = max(_ROWS_AT_ONCE, self._batch_size)
        order = self._epoch_seed(number) if self._shuffle else None
        rng = np.random.default_rng(self._entropy(number))
        if self._keep and self.rows:
            pixels, labels = self._in_memory()
            rows = rng.permutation(self.rows) if self._shuffle else np.arange(self.rows)
            for start in range(0, self.rows, step):
                part = rows[start : start + step]
                yield pixels[part], labels[part]
            return
        chunks = self._targets(order)
        yield from mixed(chunks, self._buffer, step, rng) if self._shuffle else chunks

    def _in_memory(self) -> tuple[Pixels, Labels]:
        if self._kept is None:
            parts = list(self._targets(order=None))
            self._kept = (
                np.concatenate([pixels for pixels, _ in parts]),
                np.concatenate([labels for _, labels in parts]),
            )
        return self._kept

    def _targets(self, order: int | None) -> Iterator[tuple[Pixels, Labels]]:
        """One row group after the other: flat pixels, and labels or distributions."""
        for pixels, others in self._reader.chunks([self._target], order=order):
            column = others[self._target]
            yield pixels, column if self._target == schema.LABEL else np.stack(column.tolist())

    def _epoch_seed(self, number: int) -> int:
        return int(np.random.SeedSequence(self._entropy(number)).generate_state(1)[0])

    def _entropy(self, number: int) -> list[int]:
        """Of an epoch: each shard draws for itself, the first one as if it were alone."""
        return [self._seed, number, *([self._shard] if self._shard else [])]


def _values(pixels: tf.Tensor, normalization: Normalization) -> tf.Tensor:
    """The normalised values of pixels, float32; five times as fast as a lookup in the table."""
    return pixels * np.float32(normalization.scale) + np.float32(normalization.offset)


def _require_table(normalization: Normalization) -> None:
    """Makes sure that this machine's arithmetic gives the very bits of the table."""
    values = _values(tf.range(256.0), normalization).numpy()
    if not np.array_equal(values, normalization.table()):
        raise RuntimeError("TensorFlow's float32 arithmetic differs from NumPy's on this machine")
