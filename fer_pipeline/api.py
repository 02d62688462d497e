"""Datasets on disk, for Arrow, pandas and TensorFlow: a part of the public Python API.

Import it with `from fer_pipeline import Dataset`. This module imports neither TensorFlow, pandas
nor Spark. TensorFlow and pandas are imported by the methods that need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.dataset as pa_dataset

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.extras import explain_missing_packages
from fer_pipeline.io.paths import get_filesystem, is_local

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf


class Dataset(StoredDataset):
    """A dataset that the preprocess job wrote; open it with `Dataset.open(path)`.

    The names of the splits are "train", "validation" and "test". Only the files that the manifest
    lists are read, because an interrupted job may have left further files in the folder.
    """

    @property
    def row_counts(self) -> dict[str, int]:
        """Number of rows of each split, by the name of the split; 0 for an empty split."""
        return {str(split): self.row_count(split) for split in Split}

    def arrow_dataset(self, split: str) -> pa_dataset.Dataset:
        """Return a split as a `pyarrow.dataset.Dataset`, which reads the rows only when needed.

        Args:
            split: Name of the split.

        Raises:
            ValueError: The split does not exist.
            DatasetError: The split is empty, or a file is missing or does not have the size that
                `manifest.json` states.
        """
        paths = [self.folder / file.path for file in self.require_split(Split(split))]
        if is_local(self.folder):
            return pa_dataset.dataset([str(path) for path in paths])
        # The paths within the filesystem, such as bucket/key for s3://bucket/key.
        keys = [cast(Any, path).path for path in paths]
        return pa_dataset.dataset(keys, filesystem=get_filesystem(self.folder))

    def to_arrow(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a split into a `pyarrow.Table`.

        Args:
            split: Name of the split.
            columns: Names of the columns to read; all columns by default.

        Raises:
            ValueError: The split does not exist.
            DatasetError: The split is empty, or a file is missing or does not have the size that
                `manifest.json` states.
        """
        return self.arrow_dataset(split).to_table(columns=columns and list(columns))

    @explain_missing_packages()
    def to_pandas(self, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a split into a `pandas.DataFrame`.

        Args:
            split: Name of the split.
            columns: Names of the columns to read; all columns by default.

        Raises:
            ValueError: The split does not exist.
            DatasetError: The split is empty, or a file is missing or does not have the size that
                `manifest.json` states.
            MissingPackageError: pandas is not installed.
        """
        return self.to_arrow(split, columns).to_pandas()

    @explain_missing_packages("train")
    def to_tf(
        self, split: str, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> tf.data.Dataset:
        """Return the batches of one epoch of a split as a `tf.data.Dataset`.

        Args:
            split: Name of the split.
            batch_size: Number of images in a batch; the last batch may have fewer images.
            shuffle: Whether to shuffle the rows, in a different order for each seed and epoch.
            seed: Seed of the shuffle.
            epoch: Number of the epoch, from 0; it changes only the order of shuffled rows.

        Returns:
            A dataset of pairs (images, labels). Images: float32 of shape (n, size, size, 1), with
            the normalisation that `manifest.json` states. Labels: int32 of shape (n,).

        Raises:
            ValueError: The split does not exist.
            DatasetError: The split is empty, or a file is missing or does not have the size that
                `manifest.json` states.
            MissingPackageError: TensorFlow is not installed.
        """
        # Importing TensorFlow takes several seconds.
        from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

        options = LoaderOptions(batch_size, shuffle=shuffle, seed=seed)
        return BatchLoader(self, Split(split), options).make_tf_dataset(epoch)
