"""Options of a dataset's files: columns, variants, row groups, compression."""

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
"""Number of readers that can read a split in parallel if it is large enough."""

_MAX_ROWS = 4096
_MIN_ROWS = 32
_MAX_PIXELS = 32 << 20


@dataclass(frozen=True)
class WriteOptions:
    """Options of a dataset's files; sent to Spark's workers.

    Attributes:
        folder: Folder of the dataset.
        thresholds: Thresholds that divide the training records of each class into splits, by class
            index.
        offsets: Number of the first record of each block, the part of an input file that one Spark
            task reads.
        variants: Variants in which each training image is written: the original, which is the
            first, and its mirrored and rotated images.
        classes: Emotions in the order of their class indices.
        normalization: Normalisation of the stored images; None to store pixels.
        group_rows: Number of rows in a row group, by split.
        compression: Parquet compression: `zstd`, `snappy` or `none`.
        seed: Seed of the order of the rows.
        votes: Annotators' votes to store as distributions over the classes; None to store only
            labels.
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
        """Arrow schema of the dataset's files."""
        dtype = "uint8" if self.normalization is None else "float32"
        return build_arrow_schema(schema.dataset_columns(dtype, votes=self.votes is not None))


def choose_row_group_size(expected_rows: int, size: int) -> int:
    """Choose the number of rows in a Parquet row group, so that 64 readers can share a split.

    The number is between 32 and 4096. For large images it may be lower, because a row group
    contains at most 2**25 pixels.

    Args:
        expected_rows: Approximate number of rows in the split.
        size: Height and width of the images, in pixels.
    """
    max_rows = min(_MAX_ROWS, _MAX_PIXELS // size**2)
    return max(1, min(max_rows, max(_MIN_ROWS, expected_rows // READERS)))
