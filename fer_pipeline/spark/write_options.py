"""The choices of a dataset's files: columns, variants, row groups, compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_arrow_schema
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.variants import Variant
from fer_pipeline.data.votes import Votes

READERS = 64
"""Number of readers that can share a split, if it has as many rows."""

_MAX_ROWS = 4096
_MIN_ROWS = 32
_MAX_PIXELS = 32 << 20


@dataclass(frozen=True)
class WriteOptions:
    """The choices of a dataset's files; sent to the workers.

    Attributes:
        folder: Folder of the dataset.
        thresholds: Thresholds of each class between the splits.
        offsets: Offsets of the blocks that the records were read in.
        variants: Variants of each training image that are written.
        classes: Emotions by label.
        normalization: Normalisation if normalised values are stored; None if pixels are.
        group_rows: Rows in a row group, by split.
        compression: `zstd`, `snappy` or `none`.
        seed: Seed of the order of rows.
        votes: Votes if their distribution is stored.
    """

    folder: Path
    thresholds: Mapping[int, ClassThresholds]
    offsets: BlockOffsets
    variants: Sequence[Variant]
    classes: Sequence[str]
    normalization: Normalization | None
    group_rows: Mapping[Split, int]
    compression: str
    seed: int
    votes: Votes | None = None

    @property
    def columns(self) -> pa.Schema:
        """The dataset's columns."""
        dtype = "uint8" if self.normalization is None else "float32"
        return build_arrow_schema(schema.dataset_columns(dtype, votes=self.votes is not None))


def choose_group_rows(expected_rows: int, size: int) -> int:
    """Return the number of rows in a row group.

    Args:
        expected_rows: Approximate number of rows of the split; `READERS` shall be able to share
            them.
        size: Side of the images, in pixels.
    """
    largest = min(_MAX_ROWS, _MAX_PIXELS // size**2)
    return max(1, min(largest, max(_MIN_ROWS, expected_rows // READERS)))
