"""What is written of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import arrow_schema
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.variants import Variant
from fer_pipeline.data.votes import Votes

READERS = 64
"""As many readers can share a split, where it has so many rows."""

_MOST_ROWS, _FEWEST_ROWS, _MOST_PIXELS = 4096, 32, 32 << 20


@dataclass(frozen=True)
class WriteOptions:
    """What is written of the records; travels to the workers.

    Attributes:
        folder: The dataset's folder.
        cuts: Where each class is cut into splits.
        offsets: The number in its file of a block's first record, where it is not 0.
        variants: What is written of each training image.
        classes: The emotions by label.
        normalization: Given where normalised values are stored, and not pixels.
        group_rows: Rows in a row group, by split.
        compression: `zstd`, `snappy` or `none`.
        seed: Of the order of rows.
        votes: Given where their distribution is stored.
    """

    folder: Path
    cuts: Mapping[int, ClassThresholds]
    offsets: Mapping[tuple[str, int], int]
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
        return arrow_schema(schema.dataset_columns(dtype, votes=self.votes is not None))


def group_rows(expected: int, size: int) -> int:
    """How many rows make a row group.

    Args:
        expected: About how many rows the split has; `READERS` shall be able to share them.
        size: The side of the images, in pixels.
    """
    most = min(_MOST_ROWS, _MOST_PIXELS // size**2)
    return max(1, min(most, max(_FEWEST_ROWS, expected // READERS)))
