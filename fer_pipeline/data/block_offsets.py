"""Numbering of the records of a file that several Spark tasks read.

Spark divides a large file into blocks, and each task reads one block. A task knows the position of
a record in its block; the record's number in the file is this position plus the block's offset.
"""

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
    """The offset of each block: the number of its first record within the file.

    Attributes:
        first_records: 0-based number of the first record of each block within its file, by file
            name and start of the block in bytes. Blocks that begin with record 0 are omitted.
    """

    first_records: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @classmethod
    def from_counts(cls, counts: Iterable[tuple[str, int, int]]) -> BlockOffsets:
        """Compute the offset of each block from the numbers of records in the blocks.

        A block is the part of a file that one Spark task reads. Its offset is the number of records
        in the earlier blocks of the file. Offsets of 0 are not stored.

        Args:
            counts: Tuples of file name, start of the block in bytes, and number of records. A block
                may occur several times; its numbers of records are added up.
        """
        counts_by_source: dict[str, dict[int, int]] = defaultdict(dict)
        for source, block_start, record_count in counts:
            block_counts = counts_by_source[source]
            block_counts[block_start] = block_counts.get(block_start, 0) + record_count
        first_records = {}
        for source, block_counts in counts_by_source.items():
            next_record = 0
            for block_start, record_count in sorted(block_counts.items()):
                if next_record:
                    first_records[source, block_start] = next_record
                next_record += record_count
        return cls(first_records)

    def compute_record_numbers(
        self,
        sources: pa.Array | pa.ChunkedArray,
        blocks: pa.Array | pa.ChunkedArray,
        positions: npt.NDArray[np.integer[Any]],
    ) -> npt.NDArray[np.int64]:
        """Compute the 0-based number of each record within its file.

        A block is the part of a file that one Spark task reads. The number of a record is its
        position in the block plus the block's offset, the number of records in the earlier blocks
        of the file. A block without a stored offset has the offset 0.

        Args:
            sources: Name of each record's file, an Arrow column of strings.
            blocks: Start of each record's block in the file, in bytes, an Arrow column of int64.
            positions: 0-based position of each record within its block, of shape (n,).

        Returns:
            The numbers, int64 of shape (n,).
        """
        if not self.first_records:
            return positions.astype(np.int64)
        block_keys = zip(sources.to_pylist(), blocks.to_pylist(), strict=True)
        offsets = [self.first_records.get(block_key, 0) for block_key in block_keys]
        return np.array(offsets, np.int64) + positions
