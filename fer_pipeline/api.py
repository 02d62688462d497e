"""The public Python API: datasets, trained models and scores on disk.

`from fer_pipeline import Dataset, TrainedModel, read_scores` is the way to import it. This module
imports neither TensorFlow nor Spark; a method that needs TensorFlow imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.dataset as pa_dataset

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.scores import read_scores
from fer_pipeline.io.paths import get_filesystem, is_local
from fer_pipeline.learning.inference.trained_model import TrainedModel

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow as tf

__all__ = ["Dataset", "TrainedModel", "read_scores"]


class Dataset(StoredDataset):
    """A dataset that the preprocess job wrote; `Dataset.open(path)` opens it.

    A split is named by "train", "validation" or "test". Only the files that the manifest names are
    read: an interrupted job may have left others in the folder.
    """

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows by split."""
        return {str(split): self.row_count(split) for split in Split}

    def arrow_dataset(self, split: str) -> pa_dataset.Dataset:
        """Return a split as a `pyarrow.dataset.Dataset`, of which nothing has been read yet.

        Args:
            split: Name of the split.

        Raises:
            ValueError: There is no split of that name.
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        paths = [self.folder / file.path for file in self.require_split(Split(split))]
        if is_local(self.folder):
            return pa_dataset.dataset([str(path) for path in paths])
        # Keys within the filesystem: bucket/key of s3://bucket/key.
        keys = [cast(Any, path).path for path in paths]
        return pa_dataset.dataset(keys, filesystem=get_filesystem(self.folder))

    def to_arrow(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a split into a `pyarrow.Table`.

        Args:
            split: Name of the split.
            columns: Names of the columns; all by default.

        Raises:
            ValueError: There is no split of that name.
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        return self.arrow_dataset(split).to_table(columns=columns and list(columns))

    def to_pandas(self, split: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a split into a `pandas.DataFrame`.

        Args:
            split: Name of the split.
            columns: Names of the columns; all by default.

        Raises:
            ValueError: There is no split of that name.
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        return self.to_arrow(split, columns).to_pandas()

    def to_tf(
        self, split: str, batch_size: int, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> tf.data.Dataset:
        """Return one pass over a split as batches in TensorFlow.

        Args:
            split: Name of the split.
            batch_size: Number of images in a batch; the last one may have fewer.
            shuffle: Whether to shuffle the rows, in another order for each seed and epoch.
            seed: Seed of the order.
            epoch: Number of the pass, from 0.

        Returns:
            Pairs of images, float32 of shape (n, size, size, 1), normalised as the manifest states,
            and labels, int32 of shape (n,).

        Raises:
            ValueError: There is no split of that name.
            DatasetError: The split is empty, or a file is missing or has another size.
        """
        # Imports TensorFlow, which takes seconds.
        from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions

        options = LoaderOptions(batch_size, shuffle=shuffle, seed=seed)
        return BatchLoader(self, Split(split), options).make_tf_dataset(epoch)
