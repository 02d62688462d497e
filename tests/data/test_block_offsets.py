import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.data.block_offsets import BlockOffsets


class TestOffsets:
    def test_a_block_begins_where_the_previous_blocks_end(self) -> None:
        counts = [("b", 70, 1), ("a", 0, 3), ("a", 200, 5), ("a", 100, 4), ("b", 0, 2)]

        assert BlockOffsets.from_counts(counts).first_records == {
            ("a", 100): 3,
            ("a", 200): 7,
            ("b", 70): 2,
        }

    def test_counts_of_one_block_are_added(self) -> None:
        assert BlockOffsets.from_counts([("a", 0, 3), ("a", 9, 1), ("a", 0, 4)]).first_records == {
            ("a", 9): 7
        }

    def test_offsets_of_zero_are_not_stored(self) -> None:
        # The first blocks of a file may hold blank lines alone.
        assert BlockOffsets.from_counts(
            [("a", 0, 0), ("a", 5, 0), ("a", 9, 2), ("a", 12, 1)]
        ).first_records == {("a", 12): 2}
        assert BlockOffsets.from_counts([]).first_records == {}

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 2**40))),
    )
    def test_an_offset_is_the_number_of_records_in_earlier_blocks(self, counts) -> None:
        offsets = BlockOffsets.from_counts(iter(counts))
        first_records = offsets.first_records

        for source, block, _ in counts:
            before = sum(n for s, b, n in counts if s == source and b < block)
            assert first_records.get((source, block), 0) == before
        assert set(first_records) <= {(source, block) for source, block, _ in counts}
        assert 0 not in first_records.values()
        # Record numbers are computed in columns, here for the third record of each block.
        numbers = offsets.compute_record_numbers(
            pa.array([source for source, _, _ in counts], pa.string()),
            pa.array([block for _, block, _ in counts], pa.int64()),
            np.full(len(counts), 2, np.int32),
        )
        assert numbers.dtype == np.int64
        assert numbers.tolist() == [
            sum(n for s, b, n in counts if s == source and b < block) + 2
            for source, block, _ in counts
        ]
