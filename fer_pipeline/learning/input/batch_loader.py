"""Batches of a dataset's split, as TensorFlow tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.epoch_iterator import EpochIterator
from fer_pipeline.learning.input.parquet_reader import ParquetReader, Shard
from fer_pipeline.learning.input.shuffle_buffer import Pixels, Targets, shuffle_with_buffer
from fer_pipeline.learning.types import Tensor

Transform = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of images, float32 0..255 of shape (n, size, size, 1), labels (or distributions) and a
seed, int64 of shape (2,), to images and labels. The seed is its only source of randomness."""

PADDING_LABEL = -1
"""Label of a padding image; it keeps a batch non-empty and is ignored by metrics."""

_WHOLE_SPLIT = Shard()
_PREFETCHED_BATCHES = 8
_MIN_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class LoaderOptions:
    """The order and the form in which a split is delivered.

    Attributes:
        batch_size: Images of a batch, of all shards together.
        shuffle: Whether to shuffle the rows, in a different order each epoch.
        seed: Seed of the order.
        deterministic: Whether equal seeds always give equal orders; then one thread reads.
        cache_in_memory: Whether to keep the decoded pixels in memory after the first epoch.
        shuffle_buffer: Size of the shuffle buffer, in images; a cache is shuffled as a whole.
        soft_labels: Whether to deliver distributions over the classes in place of labels, if the
            dataset has them.
    """

    batch_size: int
    shuffle: bool = False
    seed: int = 0
    deterministic: bool = True
    cache_in_memory: bool = False
    shuffle_buffer: int = 16384
    soft_labels: bool = False


class BatchLoader:
    """Loader of a split's batches, one epoch after the other.

    Each of several shards delivers a part of every batch. All shards have the same number of
    batches, and the parts of one shard have nearly the same size.

    Attributes:
        row_count: Rows of one epoch.
        split_row_count: Rows of one epoch of all shards together.
        steps_per_epoch: Batches of one epoch; the last one may be smaller.
    """

    def __init__(
        self,
        dataset: StoredDataset,
        split: Split,
        options: LoaderOptions,
        *,
        shard: Shard = _WHOLE_SPLIT,
        transform: Transform | None = None,
    ) -> None:
        """Open a split.

        Args:
            dataset: The dataset.
            split: The split.
            options: The order and the form of the batches.
            shard: The part of the rows that this loader delivers.
            transform: Function that is applied to each batch before its normalization.

        Raises:
            DatasetError: The split is empty, a file is missing or has another size, or a shuffled
                shard has fewer rows than there are batches.
        """
        self._manifest, self._options = dataset.manifest, options
        self._shard, self._transform = shard, transform
        self._reader = ParquetReader(
            dataset, split, deterministic=options.deterministic, shard=shard
        )
        self.row_count = self._reader.row_count
        self.split_row_count = self._reader.split_row_count
        self.steps_per_epoch = -(-self.split_row_count // options.batch_size)
        has_soft_labels = self._manifest.labels.has_soft_labels
        self._target_column = (
            schema.VOTES if options.soft_labels and has_soft_labels else schema.LABEL
        )
        self._cache: tuple[Pixels, Targets] | None = None
        _require_exact_arithmetic(self._manifest.image.normalization)
        if options.shuffle and self.row_count < self.steps_per_epoch:
            raise DatasetError(
                f"{dataset.folder}: reader {shard.index + 1} of {shard.count} has"
                f" {self.row_count} rows of the {split} split for {self.steps_per_epoch} batches;"
                " make more and smaller row groups with output.row_group_rows, or use fewer workers"
            )

    def iterate_epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch.

        Args:
            epoch: Number of the epoch, from 0; each epoch has its own order.

        Yields:
            Normalized images, float32 of shape (n, size, size, 1), and labels, int32 of shape
            (n,), or distributions, float32 of shape (n, classes). n is the batch size except for
            the last batch.

        Raises:
            DatasetError: The number of delivered rows or the images differ from the manifest.
        """
        iterator = self.open_epoch(epoch)
        with iterator.translate_reader_errors():
            yield from iterator.batches
        iterator.drain_and_verify()

    def open_epoch(self, epoch: int, skip_batches: int = 0) -> EpochIterator:
        """Start an epoch whose batches are taken within a `tf.function`.

        Args:
            epoch: Number of the epoch, from 0; each epoch has its own order.
            skip_batches: Number of batches to skip because an earlier process trained on them.
        """
        errors: list[Exception] = []
        return EpochIterator(self._build_tf_dataset(epoch, errors, skip_batches), errors)

    def make_tf_dataset(self, epoch: int) -> tf.data.Dataset:
        """Return an epoch as a `tf.data.Dataset`.

        Its consumer gets reading errors as TensorFlow errors that contain the original message.

        Args:
            epoch: Number of the epoch, from 0.
        """
        return self._build_tf_dataset(epoch, [])

    def _build_tf_dataset(
        self, epoch: int, errors: list[Exception], skip_batches: int = 0
    ) -> tf.data.Dataset:
        def generate_chunks() -> Iterator[tuple[Pixels, Targets]]:
            try:
                yield from self._iterate_epoch_chunks(epoch)
                yield from self._make_padding_chunks()
            except Exception as error:
                errors.append(error)
                raise

        chunks = tf.data.Dataset.from_generator(
            generate_chunks, output_signature=self._make_chunk_signature()
        )
        # Python delivers many rows at a time, because each call costs as much as a small batch, and
        # delivers bytes, because floats would be four times as much to move.
        batches = chunks.rebatch(self._compute_batch_sizes()).enumerate().skip(skip_batches)
        seed = tf.constant(self._derive_epoch_seed(epoch), tf.int64)
        finished = batches.map(
            lambda index, rows: self._finish_batch(rows[0], rows[1], tf.stack([seed, index]))
        )
        return finished.prefetch(_PREFETCHED_BATCHES)

    def _compute_batch_sizes(self) -> int | list[int]:
        """Return the rows of every batch, or of each batch for one of several shards."""
        if self._shard.count == 1:
            return self._options.batch_size
        steps = self.steps_per_epoch
        rows = max(self.row_count, steps)
        ends = [rows * step // steps for step in range(steps + 1)]
        return [end - start for start, end in itertools.pairwise(ends)]

    def _make_padding_chunks(self) -> Iterator[tuple[Pixels, Targets]]:
        """Yield a padding image for each batch that would be empty in a small shard.

        TensorFlow's convolutions do not accept empty batches on every processor.
        """
        missing = self.steps_per_epoch - self.row_count
        if missing > 0:
            yield (
                np.zeros((missing, self._manifest.image.size**2), np.uint8),
                np.full(missing, PADDING_LABEL, np.int32),
            )

    def _make_chunk_signature(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        targets = tf.TensorSpec((None,), tf.int32)
        if self._target_column == schema.VOTES:
            targets = tf.TensorSpec((None, len(self._manifest.classes)), tf.float32)
        return tf.TensorSpec((None, self._manifest.image.size**2), tf.uint8), targets

    def _finish_batch(self, pixels: Tensor, targets: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        size = self._manifest.image.size
        images = tf.cast(tf.reshape(pixels, (-1, size, size, 1)), tf.float32)
        if self._transform:
            images, targets = self._transform(images, targets, seed)
        return _normalize(images, self._manifest.image.normalization), targets

    def iterate_stored_rows(
        self, columns: Sequence[str]
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """Yield all rows in stored order, with their pixels as stored.

        Args:
            columns: Names of the columns to read beside the image.

        Yields:
            Pixels, uint8 of shape (n, size, size), and the columns, each of length n.

        Raises:
            DatasetError: The number of delivered rows or the images differ from the manifest.
        """
        size = self._manifest.image.size
        for pixels, others in self._reader.read_row_groups(columns, shuffle_seed=None):
            for start in range(0, len(pixels), self._options.batch_size):
                part = slice(start, start + self._options.batch_size)
                yield (
                    pixels[part].reshape(-1, size, size),
                    {name: others[name][part] for name in columns},
                )

    def _iterate_epoch_chunks(self, epoch: int) -> Iterator[tuple[Pixels, Targets]]:
        """Yield the rows of an epoch in its order."""
        options = self._options
        chunk_rows = max(_MIN_CHUNK_ROWS, options.batch_size)
        shuffle_seed = self._derive_epoch_seed(epoch) if options.shuffle else None
        rng = np.random.default_rng(self._derive_epoch_entropy(epoch))
        if options.cache_in_memory and self.row_count:
            pixels, targets = self._load_cache()
            count = self.row_count
            order = rng.permutation(count) if options.shuffle else np.arange(count)
            for start in range(0, count, chunk_rows):
                part = order[start : start + chunk_rows]
                yield pixels[part], targets[part]
            return
        chunks = self._read_chunks(shuffle_seed)
        if options.shuffle:
            chunks = shuffle_with_buffer(chunks, options.shuffle_buffer, chunk_rows, rng)
        yield from chunks

    def _load_cache(self) -> tuple[Pixels, Targets]:
        if self._cache is None:
            chunks = list(self._read_chunks(shuffle_seed=None))
            self._cache = (
                np.concatenate([pixels for pixels, _ in chunks]),
                np.concatenate([targets for _, targets in chunks]),
            )
        return self._cache

    def _read_chunks(self, shuffle_seed: int | None) -> Iterator[tuple[Pixels, Targets]]:
        """Yield flat pixels and targets, one row group after the other."""
        name = self._target_column
        for pixels, columns in self._reader.read_row_groups([name], shuffle_seed=shuffle_seed):
            column = columns[name]
            yield pixels, column if name == schema.LABEL else np.stack(column.tolist())

    def _derive_epoch_seed(self, epoch: int) -> int:
        return int(np.random.SeedSequence(self._derive_epoch_entropy(epoch)).generate_state(1)[0])

    def _derive_epoch_entropy(self, epoch: int) -> list[int]:
        """Return the seeds of an epoch; the first shard has those of an undivided split."""
        return [self._options.seed, epoch, *([self._shard.index] if self._shard.index else [])]


def _normalize(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Return normalized pixels, float32; five times as fast as a lookup in the table."""
    return pixels * np.float32(normalization.scale) + np.float32(normalization.offset)


def _require_exact_arithmetic(normalization: Normalization) -> None:
    """Check that TensorFlow's arithmetic on this machine gives exactly the values of the table."""
    normalized = _normalize(tf.range(256.0), normalization).numpy()
    if not np.array_equal(normalized, normalization.lookup_table()):
        raise RuntimeError("TensorFlow's float32 arithmetic differs from NumPy's on this machine")
