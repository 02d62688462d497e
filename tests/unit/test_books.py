import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.accounting import Cause, Reason, Split
from fer_pipeline.books import Books, block_offsets, checksum
from fer_pipeline.config import Config
from fer_pipeline.errors import DatasetError, TooManyBadRowsError
from fer_pipeline.manifest import SourceFile
from fer_pipeline.selection import KEPT, OUTCOMES, SPLITS


def tally(
    n: int,
    why: Reason | Cause | None = None,
    *,
    source: str = "a.csv",
    block: int = 0,
    split: Split | None = Split.TRAIN,
    label: int = 0,
    code: int = 6,
    prints: int = 0,
) -> dict[str, Any]:
    """What `spark.passes.tally` counts of one group; `prints` is the sum of its fingerprints."""
    return {
        "source": source,
        "block": block,
        "outcome": KEPT if why is None else OUTCOMES.index(why),
        "split": -1 if split is None else SPLITS.index(split),
        "label": label,
        "n": n,
        "code": code,
        "low": prints % 2**32,
        "high": prints >> 32,
    }


# Two files, one of them in three blocks that come in any order.
TALLIES = [
    tally(3, source="b.csv", block=900, label=1, code=1, prints=2**63),
    tally(5, source="b.csv", label=0, code=0, prints=2**63 + 7),
    tally(2, source="b.csv", label=1, code=1),
    tally(4, source="b.csv", split=Split.TEST, label=1, code=1),
    tally(1, Reason.PIXEL_RANGE, source="b.csv", label=0, code=0, prints=3),
    tally(2, Reason.BROKEN, source="b.csv", block=400, split=None, label=-1, code=-1),
    tally(6, Cause.CLASS, source="a.csv", split=None, label=-1, code=5),
    tally(7, split=Split.VALIDATION, source="a.csv", label=2, code=2),
    tally(8, Cause.COPY, source="a.csv", label=0, code=0, prints=2**32 - 1),
    tally(9, Reason.PIXEL_RANGE, source="a.csv", label=2, code=2, prints=1),
]


class TestOf:
    def test_every_record_is_entered_once(self) -> None:
        assert Books.of(TALLIES) == Books(
            read=47,
            dropped=Counter({Cause.CLASS: 6, Cause.COPY: 8}),
            quarantined=Counter({Reason.PIXEL_RANGE: 10, Reason.BROKEN: 2}),
            pool=Counter({0: 5, 1: 5}),
            evaluation=Counter({Split.VALIDATION: 7, Split.TEST: 4}),
            offsets={("b.csv", 400): 12, ("b.csv", 900): 14},
            sources=[
                SourceFile(path="a.csv", records=30, quarantined=9, fingerprint="0000000100000000"),
                SourceFile(path="b.csv", records=17, quarantined=3, fingerprint="000000000000000a"),
            ],
            codes={"a.csv": 5, "b.csv": 1},
        )

    def test_nothing_makes_empty_books(self) -> None:
        assert Books.of([]) == Books()

    @given(st.permutations(TALLIES))
    def test_the_order_does_not_matter(self, tallies) -> None:
        assert Books.of(tallies) == Books.of(TALLIES)

    @given(
        st.lists(
            st.builds(
                tally,
                st.integers(0, 50),
                st.sampled_from([None, *Reason, *Cause]),
                source=st.sampled_from(["a", "b", "c"]),
                block=st.integers(0, 4),
                split=st.sampled_from(list(Split)),
                label=st.integers(0, 6),
                prints=st.integers(0, 2**64 - 1),
            )
        )
    )
    def test_the_books_balance(self, tallies) -> None:
        books = Books.of(tallies)

        kept = sum(books.pool.values()) + sum(books.evaluation.values())
        dropped, bad = sum(books.dropped.values()), sum(books.quarantined.values())
        assert books.read == kept + dropped + bad
        assert books.read == sum(source.records for source in books.sources)
        assert bad == sum(source.quarantined for source in books.sources)
        assert sum(int(source.fingerprint, 16) for source in books.sources) % 2**64 == (
            sum(row["low"] + (row["high"] << 32) for row in tallies) % 2**64
        )


class TestOffsets:
    def test_a_block_begins_where_those_before_it_end(self) -> None:
        counts = [("b", 70, 1), ("a", 0, 3), ("a", 200, 5), ("a", 100, 4), ("b", 0, 2)]

        assert block_offsets(counts) == {("a", 100): 3, ("a", 200): 7, ("b", 70): 2}

    def test_counts_of_one_block_add_up(self) -> None:
        assert block_offsets([("a", 0, 3), ("a", 9, 1), ("a", 0, 4)]) == {("a", 9): 7}

    def test_zero_goes_without_saying(self) -> None:
        # The first blocks of a file may hold blank lines alone.
        assert block_offsets([("a", 0, 0), ("a", 5, 0), ("a", 9, 2), ("a", 12, 1)]) == {
            ("a", 12): 2
        }
        assert block_offsets([]) == {}

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 2**40))),
    )
    def test_an_offset_is_the_number_of_records_before(self, counts) -> None:
        found = block_offsets(iter(counts))

        for source, block, _ in counts:
            before = sum(n for s, b, n in counts if s == source and b < block)
            assert found.get((source, block), 0) == before
        assert set(found) <= {(source, block) for source, block, _ in counts}
        assert 0 not in found.values()


class TestChecksum:
    @pytest.mark.parametrize(
        ("total", "text"),
        [
            (0, "0000000000000000"),
            (0xABC, "0000000000000abc"),
            (-1, "ffffffffffffffff"),
            (2**64 + 1, "0000000000000001"),
            (-(2**64), "0000000000000000"),
        ],
    )
    def test_it_is_the_last_64_bits(self, total, text) -> None:
        assert checksum(total) == text

    @given(st.lists(st.integers(0, 2**64 - 1)))
    def test_it_does_not_matter_what_is_summed_first(self, hashes) -> None:
        # A partial sum may arrive as a signed number, as Spark's are.
        half = len(hashes) // 2
        left, right = sum(hashes[:half]), sum(hashes[half:])
        signed = (right + 2**63) % 2**64 - 2**63

        assert checksum(left + signed) == checksum(sum(hashes))


def config(**values: Any) -> Config:
    return Config.model_validate(values)


class TestCheck:
    def test_sound_books_pass_in_silence(self, caplog) -> None:
        Books.of([tally(99), tally(1, Reason.EMPTY)]).check(config())

        assert caplog.records == []

    @pytest.mark.parametrize(("bad", "of"), [(29, 100), (57, 100), (1, 3), (0, 7), (7, 7)])
    def test_just_as_many_bad_rows_as_are_allowed_pass(self, bad, of) -> None:
        """Their fraction is hardly ever a floating-point number."""
        books = Books.of([tally(of - bad), tally(1, split=Split.TEST), tally(bad, Reason.EMPTY)])
        allowed = config(input={"max_quarantined_fraction": bad / (of + 1)})

        books.check(allowed)

    def test_one_more_fails(self) -> None:
        books = Books.of(
            [
                tally(70, source="a.csv"),
                tally(1, Reason.EMPTY, source="a.csv"),
                tally(9, Reason.PIXEL_RANGE, source="b.csv", split=None, label=-1, code=-1),
                tally(20, Reason.BROKEN, source="b.csv", split=None, label=-1, code=-1),
            ]
        )

        with pytest.raises(TooManyBadRowsError) as caught:
            books.check(config(input={"max_quarantined_fraction": 0.29}))

        assert str(caught.value) == (
            "30 of 100 records are bad, more than input.max_quarantined_fraction 0.29 allows"
            " (broken line: 20, value outside 0..255: 9, empty field: 1); most of them in b.csv;"
            " nothing was written"
        )

    def test_one_of_a_hundred_million_counts(self) -> None:
        rows = 10**8
        books = Books.of([tally(rows - rows // 100 - 1), tally(rows // 100 + 1, Reason.EMPTY)])

        with pytest.raises(TooManyBadRowsError, match=r"^1000001 of 100000000 records are bad"):
            books.check(config())

    def test_only_bad_rows_fail_by_their_reason(self) -> None:
        with pytest.raises(TooManyBadRowsError, match=r"\(empty field: 2\)"):
            Books.of([tally(2, Reason.EMPTY)]).check(config())

    def test_nothing_to_train_on(self) -> None:
        books = Books.of(
            [
                tally(3, split=Split.TEST),
                tally(2, split=Split.VALIDATION),
                tally(4, Cause.CLASS),
                tally(5, Cause.COPY_OF_EVALUATION),
            ]
        )

        with pytest.raises(DatasetError) as caught:
            books.check(config())

        assert str(caught.value) == (
            "no training rows are left of 14 records (dropped: class not selected: 4, copy of a"
            " test or validation image: 5; validation and test: 5); check classes and"
            " split.usage_to_split"
        )

    def test_nothing_to_train_on_and_nothing_dropped(self) -> None:
        with pytest.raises(DatasetError, match=r"of 3 records \(dropped: none; validation and"):
            Books.of([tally(3, split=Split.TEST)]).check(config())


class TestWarning:
    """Of files that number five emotions in an order of their own."""

    @pytest.mark.parametrize("code", [0, 4])
    def test_low_codes_are_named(self, caplog, code) -> None:
        books = Books.of(
            [
                tally(5, source="five.csv", code=0),
                tally(5, source="five.csv", code=code, split=Split.TEST),
                tally(5, source="seven.csv", code=5),
            ]
        )

        with caplog.at_level(logging.WARNING):
            books.check(config())

        [record] = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            f"five.csv: its codes never exceed {code}, FER2013's go up to 6; if they mean other"
            " emotions than angry, disgust, fear, happy, sad, say which with input.emotions"
        )

    def test_names_have_no_code(self, caplog) -> None:
        Books.of([tally(5, source="faces/angry", code=-1)]).check(config())

        assert caplog.records == []

    @pytest.mark.parametrize(
        "meanings",
        [
            ["anger", "disgust", "sad", "happiness", "surprise"],
            ["angry", "disgust", "fear", "happy", "sad"],
        ],
    )
    def test_a_user_who_said_what_they_mean_is_not_warned(self, caplog, meanings) -> None:
        Books.of([tally(5, code=4)]).check(config(input={"emotions": meanings}))

        assert caplog.records == []

    def test_the_default_in_other_words_is_still_the_default(self, caplog) -> None:
        words = ["anger", "disgusted", "afraid", "joy", "sadness", "surprised", "calm"]

        Books.of([tally(5, code=4)]).check(config(input={"emotions": words}))

        assert len(caplog.records) == 1
