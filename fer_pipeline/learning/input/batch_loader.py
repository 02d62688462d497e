"""Loading of a split's batches as TensorFlow tensors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fer_pipeline.config.schema import ReaderName
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import DatasetError
from fer_pipeline.learning.input.epoch_iterator import EpochIterator
from fer_pipeline.learning.input.parquet_reader import ParquetReader
from fer_pipeline.learning.input.row_groups import Shard
from fer_pipeline.learning.input.shuffle_buffer import Pixels, Targets, shuffle_with_buffer
from fer_pipeline.learning.types import Tensor

Transform = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function `(images, labels, seed) -> (images, labels)` that is applied to each batch. Images:
float32 of shape (n, size, size, 1), pixel values in [0, 255]. Labels: int32 of shape (n,), or
distributions, float32 of shape (n, classes). Seed: int64 of shape (2,), which is the only source of
randomness."""

PADDING_LABEL = -1
"""Label of a padding image, which fills a batch that would be empty. Metrics ignore it."""

_WHOLE_SPLIT = Shard()
_PREFETCHED_BATCHES = 8
_MIN_CHUNK_ROWS = 1024


@dataclass(frozen=True)
class LoaderOptions:
    """Options for the order and the form of the batches.

    Attributes:
        batch_size: Number of images in a batch, over all shards together.
        shuffle: Whether to shuffle the rows, in a different order each epoch.
        seed: Seed of the order.
        deterministic: Whether equal seeds always give equal orders; then petastorm reads with one
            thread.
        cache_in_memory: Whether to keep the decoded pixels in memory after the first epoch.
        shuffle_buffer: Capacity of the shuffle buffer, in images. It is not used with
            `cache_in_memory`, because a cached split is shuffled completely.
        soft_labels: Whether to return distributions over the classes instead of labels, if the
            dataset has distributions.
        reader: Package that reads the files; the order of the rows is the same.
    """

    batch_size: int
    shuffle: bool = False
    seed: int = 0
    deterministic: bool = True
    cache_in_memory: bool = False
    shuffle_buffer: int = 16384
    soft_labels: bool = False
    reader: ReaderName = "petastorm"


class BatchLoader:
    """A loader of the batches of a split, for one or more epochs.

    If there are several shards, each shard loads a part of every batch. All shards have the same
    number of batches, and the parts of one shard have nearly the same size.

    Attributes:
        row_count: Number of rows that this loader reads in one epoch.
        split_row_count: Number of rows of the whole split.
        steps_per_epoch: Number of batches in one epoch; the last batch may be smaller.
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
        """Open a split: count its rows and check its files; no image is read yet.

        Args:
            dataset: Dataset to read.
            split: Split to read.
            options: Batch size, shuffling, caching and form of the labels.
            shard: Part of the rows that this loader reads, if several workers share the split.
            transform: Function `(images, labels, seed) -> (images, labels)` that is applied to each
                batch before its images are normalised, such as an augmentation.

        Raises:
            DatasetError: The split is empty, a file is missing or has a different size than the
                manifest says, or a shuffled shard has fewer rows than there are batches.
            RuntimeError: TensorFlow computes other normalised values than NumPy on this machine.
        """
        self._manifest, self._options = dataset.manifest, options
        self._shard, self._transform = shard, transform
        self._reader = ParquetReader(
            dataset,
            split,
            deterministic=options.deterministic,
            shard=shard,
            reader=options.reader,
        )
        self.row_count = self._reader.row_count
        self.split_row_count = self._reader.split_row_count
        self.steps_per_epoch = -(-self.split_row_count // options.batch_size)
        has_soft_labels = self._manifest.labels.has_soft_labels
        self._target_column = (
            schema.VOTES if options.soft_labels and has_soft_labels else schema.LABEL
        )
        self._cache: tuple[Pixels, Targets] | None = None
        # The exceptions of the reader, one list for each epoch that was opened.
        self._reader_errors: list[list[Exception]] = []
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
            epoch: Index of the epoch, from 0. Shuffled rows have a different order in each epoch.

        Yields:
            Normalised images, float32 of shape (n, size, size, 1), and labels, int32 of shape
            (n,), or distributions, float32 of shape (n, classes). If this loader reads the whole
            split, n is the batch size, except in the last batch. A loader of one of several shards
            yields only its part of each batch.

        Raises:
            DatasetError: The number of rows, or an image, is not as stated in the manifest.
        """
        iterator = self.open_epoch(epoch)
        with iterator.translate_reader_errors():
            yield from iterator.batches
        iterator.drain_and_verify()

    def open_epoch(self, epoch: int, skip_batches: int = 0) -> EpochIterator:
        """Return an iterator over the batches of one epoch, for use inside a `tf.function`.

        Args:
            epoch: Index of the epoch, from 0. Shuffled rows have a different order in each epoch.
            skip_batches: Number of batches to leave out at the beginning, because the network was
                trained on them before the training was interrupted.
        """
        errors: list[Exception] = []
        build_variant, batch_spec = self._traced_tf_dataset
        variant = build_variant(*self._make_epoch_arguments(epoch, errors, skip_batches))
        return EpochIterator(tf.data.experimental.from_variant(variant, batch_spec), errors)

    def make_tf_dataset(self, epoch: int) -> tf.data.Dataset:
        """Return the batches of one epoch as a `tf.data.Dataset`.

        Its elements are the pairs that `iterate_epoch` yields. If reading fails, the iteration over
        the dataset raises a TensorFlow error that contains the original message.

        Args:
            epoch: Index of the epoch, from 0. Shuffled rows have a different order in each epoch.
        """
        return self._build_tf_dataset(*self._make_epoch_arguments(epoch, []))

    def _make_epoch_arguments(
        self, epoch: int, errors: list[Exception], skip_batches: int = 0
    ) -> list[Tensor]:
        """Return the arguments of `_build_tf_dataset` for an epoch, four int64 scalars.

        Args:
            epoch: Index of the epoch, from 0.
            errors: List to which the reader's exceptions will be appended.
            skip_batches: Number of batches to leave out at the beginning.
        """
        errors_index = len(self._reader_errors)
        self._reader_errors.append(errors)
        numbers = (epoch, self._derive_epoch_seed(epoch), skip_batches, errors_index)
        return [tf.constant(number, tf.int64) for number in numbers]

    @functools.cached_property
    def _traced_tf_dataset(self) -> tuple[Callable[..., Tensor], Any]:
        """The graph of `_build_tf_dataset`, which is traced once and serves all epochs.

        To trace it takes longer than to read a small epoch.

        Returns:
            A function with the same arguments that returns the dataset as a variant tensor, and the
            dataset's `element_spec`.
        """
        batch_spec: Any = None

        @tf.function(input_signature=[tf.TensorSpec((), tf.int64)] * 4, autograph=False)
        def build_variant(*arguments: Tensor) -> Tensor:
            nonlocal batch_spec
            dataset = self._build_tf_dataset(*arguments)
            batch_spec = dataset.element_spec
            return tf.data.experimental.to_variant(dataset)

        return build_variant.get_concrete_function(), batch_spec

    def _build_tf_dataset(
        self, epoch: Tensor, seed: Tensor, skip_batches: Tensor, errors_index: Tensor
    ) -> tf.data.Dataset:
        """Return one epoch as a `tf.data.Dataset` of transformed and normalised batches.

        All arguments are int64 scalars.

        Args:
            epoch: Index of the epoch, from 0.
            seed: Seed of the transform.
            skip_batches: Number of batches to leave out at the beginning.
            errors_index: Index of the list in `_reader_errors` to which the reader's exceptions are
                appended, because TensorFlow replaces them with its own exceptions.
        """
        chunks = tf.data.Dataset.from_generator(
            self._generate_chunks,
            args=(epoch, errors_index),
            output_signature=self._make_chunk_signature(),
        )
        # The Python generator yields many rows at a time, because each call costs as much as a
        # small batch. It yields bytes, because floats would be four times as much data to copy.
        batches = chunks.rebatch(self._compute_batch_sizes()).enumerate().skip(skip_batches)
        finished_batches = batches.map(
            lambda index, rows: self._transform_and_normalize(
                rows[0], rows[1], tf.stack([seed, index])
            )
        )
        return finished_batches.prefetch(_PREFETCHED_BATCHES)

    def _generate_chunks(self, epoch: int, errors_index: int) -> Iterator[tuple[Pixels, Targets]]:
        """Yield the rows of the epoch in chunks, and then padding images, if any are needed.

        Args:
            epoch: Index of the epoch, from 0.
            errors_index: Index of the list in `_reader_errors` to which an exception is appended
                before it is raised.
        """
        try:
            yield from self._iterate_epoch_chunks(int(epoch))
            padding = self._make_padding_chunk()
            if padding is not None:
                yield padding
        except Exception as error:
            self._reader_errors[errors_index].append(error)
            raise

    def _compute_batch_sizes(self) -> int | list[int]:
        """Return the number of rows in each batch of this loader.

        Returns:
            For a single shard, the configured batch size, although the last batch may be smaller.
            For one of several shards, a list with the size of every batch: the sizes can differ by
            one row.
        """
        if self._shard.count == 1:
            return self._options.batch_size
        step_count = self.steps_per_epoch
        row_count = max(self.row_count, step_count)  # with padding images
        boundaries = [row_count * step // step_count for step in range(step_count + 1)]
        return [end - start for start, end in itertools.pairwise(boundaries)]

    def _make_padding_chunk(self) -> tuple[Pixels, Targets] | None:
        """Return padding images if some batches of this shard would be empty.

        All shards have the same number of batches, so a small shard can have fewer rows than
        batches. Each padding image fills one batch, because on some hardware TensorFlow's
        convolutions do not accept empty batches. The image is black. Metrics ignore it because of
        its label -1. Distributions need no padding: only training uses them, with shuffled rows,
        and a shuffled shard has enough rows.

        Returns:
            Flattened pixels, uint8 of shape (n, size * size), and labels, int32 of shape (n,); None
            if every batch has a row.
        """
        padding_count = self.steps_per_epoch - self.row_count
        if padding_count <= 0:
            return None
        return (
            np.zeros((padding_count, self._manifest.image.size**2), np.uint8),
            np.full(padding_count, PADDING_LABEL, np.int32),
        )

    def _make_chunk_signature(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """Return the `tf.TensorSpec` of a chunk's flattened pixels, and that of its targets.

        The targets are labels, or distributions over the classes.
        """
        targets = tf.TensorSpec((None,), tf.int32)
        if self._target_column == schema.VOTES:
            targets = tf.TensorSpec((None, len(self._manifest.classes)), tf.float32)
        return tf.TensorSpec((None, self._manifest.image.size**2), tf.uint8), targets

    def _transform_and_normalize(
        self, pixels: Tensor, targets: Tensor, seed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Reshape the pixels of a batch to images, transform the images, and normalise them.

        The transform, such as an augmentation, may change the targets, too.

        Args:
            pixels: Flattened pixels, uint8 of shape (n, size * size).
            targets: Labels, int32 of shape (n,), or distributions over the classes, float32 of
                shape (n, classes).
            seed: Seed of the transform, int64 of shape (2,).

        Returns:
            Normalised images, float32 of shape (n, size, size, 1), and targets.
        """
        size = self._manifest.image.size
        images = tf.cast(tf.reshape(pixels, (-1, size, size, 1)), tf.float32)
        if self._transform:
            images, targets = self._transform(images, targets, seed)
        return _normalize(images, self._manifest.image.normalization), targets

    def iterate_stored_batches(
        self, columns: Sequence[str]
    ) -> Iterator[tuple[Pixels, dict[str, npt.NDArray[Any]]]]:
        """Yield all rows in stored order, in batches, neither transformed nor normalised.

        The rows of a batch belong to one row group, so batches can be smaller than the batch size.

        Args:
            columns: Names of the columns to read in addition to the image.

        Yields:
            Pixels, uint8 of shape (n, size, size), and the columns, each of length n.

        Raises:
            DatasetError: The number of rows, or an image, is not as stated in the manifest.
        """
        size = self._manifest.image.size
        for pixels, column_arrays in self._reader.read_row_groups(columns, shuffle_seed=None):
            for start in range(0, len(pixels), self._options.batch_size):
                rows = slice(start, start + self._options.batch_size)
                yield (
                    pixels[rows].reshape(-1, size, size),
                    {name: column_arrays[name][rows] for name in columns},
                )

    def _iterate_epoch_chunks(self, epoch: int) -> Iterator[tuple[Pixels, Targets]]:
        """Yield the pixels and targets of all rows of an epoch, in chunks of many rows.

        The rows are shuffled if this is configured; otherwise they are in stored order.

        Args:
            epoch: Index of the epoch, from 0. Shuffled rows have a different order in each epoch.

        Yields:
            Flattened pixels, uint8 of shape (n, size * size), and targets: labels, int32 of shape
            (n,), or distributions over the classes, float32 of shape (n, classes).
        """
        options = self._options
        chunk_rows = max(_MIN_CHUNK_ROWS, options.batch_size)
        shuffle_seed = self._derive_epoch_seed(epoch) if options.shuffle else None
        rng = np.random.default_rng(self._derive_epoch_entropy(epoch))
        if options.cache_in_memory and self.row_count:
            pixels, targets = self._load_cached_rows()
            row_count = self.row_count
            order = rng.permutation(row_count) if options.shuffle else np.arange(row_count)
            for start in range(0, row_count, chunk_rows):
                indices = order[start : start + chunk_rows]
                yield pixels[indices], targets[indices]
            return
        chunks = self._read_chunks(shuffle_seed)
        if options.shuffle:
            chunks = shuffle_with_buffer(chunks, options.shuffle_buffer, chunk_rows, rng)
        yield from chunks

    def _load_cached_rows(self) -> tuple[Pixels, Targets]:
        """Return the pixels and targets of all rows in stored order.

        The first call reads them from disk and keeps them in memory. The pixels are uint8 of shape
        (rows, size * size). The targets are labels, int32 of shape (rows,), or distributions over
        the classes, float32 of shape (rows, classes).
        """
        if self._cache is None:
            chunks = list(self._read_chunks(shuffle_seed=None))
            self._cache = (
                np.concatenate([pixels for pixels, _ in chunks]),
                np.concatenate([targets for _, targets in chunks]),
            )
        return self._cache

    def _read_chunks(self, shuffle_seed: int | None) -> Iterator[tuple[Pixels, Targets]]:
        """Yield the pixels and targets of all rows, one Parquet row group after the other.

        Args:
            shuffle_seed: Seed of the order of the row groups; None for the stored order.

        Yields:
            Flattened pixels, uint8 of shape (n, size * size), and targets, which depend on the
            target column: labels, int32 of shape (n,), or distributions over the classes, float32
            of shape (n, classes).
        """
        name = self._target_column
        for pixels, columns in self._reader.read_row_groups([name], shuffle_seed=shuffle_seed):
            yield pixels, columns[name]

    def _derive_epoch_seed(self, epoch: int) -> int:
        """Return the seed for the order of the row groups and for the transform in an epoch."""
        return int(np.random.SeedSequence(self._derive_epoch_entropy(epoch)).generate_state(1)[0])

    def _derive_epoch_entropy(self, epoch: int) -> list[int]:
        """Return the numbers from which the seeds of an epoch are derived.

        These are the configured seed, the epoch, and the index of the shard. The index is left out
        for the first shard, which therefore has the same numbers as a split without shards.
        """
        return [self._options.seed, epoch, *([self._shard.index] if self._shard.index else [])]


def _normalize(pixels: Tensor, normalization: Normalization) -> Tensor:
    """Return normalised pixels, pixel * scale + offset, in float32.

    The values are equal to those of `Normalization.lookup_table`, but the calculation is five times
    as fast as a look-up.
    """
    return pixels * np.float32(normalization.scale) + np.float32(normalization.offset)


def _require_exact_arithmetic(normalization: Normalization) -> None:
    """Check that TensorFlow normalises each pixel value 0..255 to exactly the same number as NumPy.

    Raises:
        RuntimeError: TensorFlow normalises a pixel value to a different number.
    """
    normalized = _normalize(tf.range(256.0), normalization).numpy()
    if not np.array_equal(normalized, normalization.lookup_table()):
        raise RuntimeError("TensorFlow's float32 arithmetic differs from NumPy's on this machine")
