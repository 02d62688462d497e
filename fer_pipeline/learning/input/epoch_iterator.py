"""An iterator over the batches of one epoch, for Python and for `tf.function`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


class EpochIterator:
    """An iterator over the batches of one epoch, with a check that all rows were delivered.

    Attributes:
        batches: Iterator over batches of images and labels. It works in Python and inside a
            `tf.function`.
    """

    def __init__(self, dataset: tf.data.Dataset, reader_errors: list[Exception]) -> None:
        """Create the iterator over the batches of a dataset.

        Args:
            dataset: Batches of the epoch.
            reader_errors: List to which the reader, the Python generator behind `dataset`, appends
                its exceptions, because TensorFlow raises its own exceptions instead.
        """
        self.batches = iter(dataset)
        self._reader_errors = reader_errors

    @contextlib.contextmanager
    def translate_reader_errors(self) -> Iterator[None]:
        """Replace a TensorFlow error in the `with` block by the reader's error that caused it.

        The reader is the Python generator from which `tf.data` gets the rows.

        Raises:
            DatasetError: The dataset is damaged or cannot be read.
            OpError: TensorFlow failed for a different reason; its error is not replaced.
        """
        try:
            yield
        except tf.errors.OpError:
            if not self._reader_errors:
                raise
            raise self._reader_errors[0] from None

    def drain_and_verify(self) -> None:
        """Read and drop any remaining batches, and check that the epoch was read without an error.

        At the end of an epoch, the reader checks that it has read as many rows as the dataset's
        manifest states.

        Raises:
            DatasetError: The number of rows differs from the manifest, or reading failed.
        """
        with self.translate_reader_errors():
            # Read surplus rows too, so that the reader counts them.
            for _ in self.batches:
                pass
        if self._reader_errors:
            raise self._reader_errors[0]
