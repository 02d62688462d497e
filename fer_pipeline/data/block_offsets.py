"""Numbers of records in files that several tasks read, each a block of the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class BlockOffsets:
    """The number in its file of each block's first record.

    Attributes:
        first_records: That number by source and start of the block; blocks that begin at record 0
            are left out.
    """

    first_records: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def from_counts(cls, counts: Iterable[tuple[str, int, int]]) -> BlockOffsets:
        """Return the offsets of blocks whose records were counted.

        Args:
            counts: Source, start of the block and number of records; those of one block add up.
        """
        counts_by_source: dict[str, dict[int, int]] = defaultdict(dict)
        for source, block, count in counts:
            blocks = counts_by_source[source]
            blocks[block] = blocks.get(block, 0) + count
        first_records = {}
        for source, blocks in counts_by_source.items():
            next_record = 0
            for block, count in sorted(blocks.items()):
                if next_record:
                    first_records[source, block] = next_record
                next_record += count
        return cls(first_records)

    def compute_record_numbers(
        self,
        sources: pa.Array | pa.ChunkedArray,
        blocks: pa.Array | pa.ChunkedArray,
        positions: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.int64]:
        """Return the number of each record in its file.

        Args:
            sources: File of each record, an Arrow column of strings.
            blocks: Start in its file of the block that each record was read in.
            positions: 0-based number of each record in the block.
        """
        if not self.first_records:
            return positions.astype(np.int64)
        places = zip(sources.to_pylist(), blocks.to_pylist(), strict=True)
        offsets = [self.first_records.get(place, 0) for place in places]
        return np.array(offsets, np.int64) + positions
