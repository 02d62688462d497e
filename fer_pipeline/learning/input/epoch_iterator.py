"""One pass over a split, whose batches TensorFlow takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


class EpochIterator:
    """One pass over a split, in progress.

    Attributes:
        batches: Iterator of images and labels, in Python and in a `tf.function`.
    """

    def __init__(self, dataset: tf.data.Dataset, reader_errors: list[Exception]) -> None:
        """Start the pass.

        Args:
            dataset: The batches.
            reader_errors: List to which the generator behind `dataset` appends its exceptions.
        """
        self.batches = iter(dataset)
        self._reader_errors = reader_errors

    @contextlib.contextmanager
    def translate_reader_errors(self) -> Iterator[None]:
        """Raise the reader's own error where TensorFlow raises its wrapper with a stack trace.

        Raises:
            DatasetError: The split could not be read.
        """
        try:
            yield
        except tf.errors.OpError:
            if not self._reader_errors:
                raise
            raise self._reader_errors[0] from None

    def drain_and_verify(self) -> None:
        """Check that the epoch is exhausted and that every row was delivered.

        Raises:
            DatasetError: The number of delivered rows differs from the manifest.
        """
        with self.translate_reader_errors():
            # Surplus rows have to be read, too, before they are counted.
            for _ in self.batches:
                pass
        if self._reader_errors:
            raise self._reader_errors[0]
