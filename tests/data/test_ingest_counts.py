import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.emotions import FER2013, canonical_emotion
from fer_pipeline.data.ingest_counts import IngestCounts, format_checksum
from fer_pipeline.data.manifest import SourceFile
from fer_pipeline.data.outcomes import NO_SPLIT, DropReason, Outcome, QuarantineReason, Split
from fer_pipeline.errors import DatasetError, TooManyBadRowsError


def tally(
    n: int,
    why: QuarantineReason | DropReason | None = None,
    *,
    source: str = "a.csv",
    block: int = 0,
    split: Split | None = Split.TRAIN,
    label: int = 0,
    code: int = 6,
    prints: int = 0,
) -> dict[str, Any]:
    """What `count_records` returns of one group; `prints` is the sum of its fingerprints."""
    [outcome] = [outcome for outcome in Outcome if outcome.reason is why]
    return {
        "source": source,
        "block": block,
        "outcome": int(outcome),
        "split": NO_SPLIT if split is None else split.code,
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
    tally(1, QuarantineReason.PIXEL_RANGE, source="b.csv", label=0, code=0, prints=3),
    tally(2, QuarantineReason.BROKEN, source="b.csv", block=400, split=None, label=-1, code=-1),
    tally(6, DropReason.CLASS, source="a.csv", split=None, label=-1, code=5),
    tally(7, split=Split.VALIDATION, source="a.csv", label=2, code=2),
    tally(8, DropReason.COPY, source="a.csv", label=0, code=0, prints=2**32 - 1),
    tally(9, QuarantineReason.PIXEL_RANGE, source="a.csv", label=2, code=2, prints=1),
]


class TestOf:
    def test_every_record_is_entered_once(self) -> None:
        assert IngestCounts.from_tallies(TALLIES) == IngestCounts(
            read=47,
            dropped=Counter({DropReason.CLASS: 6, DropReason.COPY: 8}),
            quarantined=Counter({QuarantineReason.PIXEL_RANGE: 10, QuarantineReason.BROKEN: 2}),
            train_by_class=Counter({0: 5, 1: 5}),
            heldout_by_split=Counter({Split.VALIDATION: 7, Split.TEST: 4}),
            offsets=BlockOffsets({("b.csv", 400): 12, ("b.csv", 900): 14}),
            sources=[
                SourceFile(path="a.csv", records=30, quarantined=9, fingerprint="0000000100000000"),
                SourceFile(path="b.csv", records=17, quarantined=3, fingerprint="000000000000000a"),
            ],
            max_label_code={"a.csv": 5, "b.csv": 1},
        )

    def test_nothing_makes_empty_books(self) -> None:
        assert IngestCounts.from_tallies([]) == IngestCounts()

    @given(st.permutations(TALLIES))
    def test_the_order_does_not_matter(self, tallies) -> None:
        assert IngestCounts.from_tallies(tallies) == IngestCounts.from_tallies(TALLIES)

    @given(
        st.lists(
            st.builds(
                tally,
                st.integers(0, 50),
                st.sampled_from([None, *QuarantineReason, *DropReason]),
                source=st.sampled_from(["a", "b", "c"]),
                block=st.integers(0, 4),
                split=st.sampled_from(list(Split)),
                label=st.integers(0, 6),
                prints=st.integers(0, 2**64 - 1),
            )
        )
    )
    def test_the_books_balance(self, tallies) -> None:
        books = IngestCounts.from_tallies(tallies)

        kept = sum(books.train_by_class.values()) + sum(books.heldout_by_split.values())
        dropped, bad = sum(books.dropped.values()), sum(books.quarantined.values())
        assert books.read == kept + dropped + bad
        assert books.read == sum(source.records for source in books.sources)
        assert bad == sum(source.quarantined for source in books.sources)
        assert sum(int(source.fingerprint, 16) for source in books.sources) % 2**64 == (
            sum(row["low"] + (row["high"] << 32) for row in tallies) % 2**64
        )


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
        assert format_checksum(total) == text

    @given(st.lists(st.integers(0, 2**64 - 1)))
    def test_it_does_not_matter_what_is_summed_first(self, hashes) -> None:
        # A partial sum may arrive as a signed number, as Spark's are.
        half = len(hashes) // 2
        left, right = sum(hashes[:half]), sum(hashes[half:])
        signed = (right + 2**63) % 2**64 - 2**63

        assert format_checksum(left + signed) == format_checksum(sum(hashes))


CODES = {str(code): name for code, name in enumerate(FER2013)}


def to_codes(names: list[str]) -> dict[str, str]:
    """Return the emotion of each code as the configuration holds it."""
    return {str(code): canonical_emotion(name) for code, name in enumerate(names)}


class TestCheck:
    def test_sound_books_pass_in_silence(self, caplog) -> None:
        books = IngestCounts.from_tallies([tally(99), tally(1, QuarantineReason.EMPTY)])
        books.require_usable_records(0.01)
        books.warn_about_low_codes(CODES)

        assert caplog.records == []

    @pytest.mark.parametrize(("bad", "of"), [(29, 100), (57, 100), (1, 3), (0, 7), (7, 7)])
    def test_just_as_many_bad_rows_as_are_allowed_pass(self, bad, of) -> None:
        """Their fraction is hardly ever a floating-point number."""
        books = IngestCounts.from_tallies(
            [tally(of - bad), tally(1, split=Split.TEST), tally(bad, QuarantineReason.EMPTY)]
        )
        books.require_usable_records(bad / (of + 1))

    def test_one_more_fails(self) -> None:
        books = IngestCounts.from_tallies(
            [
                tally(70, source="a.csv"),
                tally(1, QuarantineReason.EMPTY, source="a.csv"),
                tally(
                    9, QuarantineReason.PIXEL_RANGE, source="b.csv", split=None, label=-1, code=-1
                ),
                tally(20, QuarantineReason.BROKEN, source="b.csv", split=None, label=-1, code=-1),
            ]
        )

        with pytest.raises(TooManyBadRowsError) as caught:
            books.require_usable_records(0.29)

        assert str(caught.value) == (
            "30 of 100 records are bad, more than input.max_quarantined_fraction 0.29 allows"
            " (broken line: 20, value outside 0..255: 9, empty field: 1); most of them in b.csv;"
            " nothing was written"
        )

    def test_one_of_a_hundred_million_counts(self) -> None:
        rows = 10**8
        books = IngestCounts.from_tallies(
            [tally(rows - rows // 100 - 1), tally(rows // 100 + 1, QuarantineReason.EMPTY)]
        )

        with pytest.raises(TooManyBadRowsError, match=r"^1000001 of 100000000 records are bad"):
            books.require_usable_records(0.01)

    def test_only_bad_rows_fail_by_their_reason(self) -> None:
        with pytest.raises(TooManyBadRowsError, match=r"\(empty field: 2\)"):
            IngestCounts.from_tallies([tally(2, QuarantineReason.EMPTY)]).require_usable_records(
                0.01
            )

    def test_nothing_to_train_on(self) -> None:
        books = IngestCounts.from_tallies(
            [
                tally(3, split=Split.TEST),
                tally(2, split=Split.VALIDATION),
                tally(4, DropReason.CLASS),
                tally(5, DropReason.COPY_OF_EVALUATION),
            ]
        )

        with pytest.raises(DatasetError) as caught:
            books.require_usable_records(0.01)

        assert str(caught.value) == (
            "no training rows are left of 14 records (dropped: class not selected: 4, copy of a"
            " test or validation image: 5; validation and test: 5); check classes and"
            " split.usage_to_split"
        )

    def test_nothing_to_train_on_and_nothing_dropped(self) -> None:
        with pytest.raises(DatasetError, match=r"of 3 records \(dropped: none; validation and"):
            IngestCounts.from_tallies([tally(3, split=Split.TEST)]).require_usable_records(0.01)


class TestWarning:
    """Of files that number five emotions in an order of their own."""

    @pytest.mark.parametrize("code", [0, 4])
    def test_low_codes_are_named(self, caplog, code) -> None:
        books = IngestCounts.from_tallies(
            [
                tally(5, source="five.csv", code=0),
                tally(5, source="five.csv", code=code, split=Split.TEST),
                tally(5, source="seven.csv", code=5),
            ]
        )

        with caplog.at_level(logging.WARNING):
            books.warn_about_low_codes(CODES)

        [record] = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage() == (
            f"five.csv: its codes never exceed {code}, FER2013's go up to 6; if they mean other"
            " emotions than angry, disgust, fear, happy, sad, say which with input.emotions"
        )

    def test_names_have_no_code(self, caplog) -> None:
        books = IngestCounts.from_tallies([tally(5, source="faces/angry", code=-1)])
        books.warn_about_low_codes(CODES)

        assert caplog.records == []

    @pytest.mark.parametrize(
        "meanings",
        [
            ["anger", "disgust", "sad", "happiness", "surprise"],
            ["angry", "disgust", "fear", "happy", "sad"],
        ],
    )
    def test_a_user_who_said_what_they_mean_is_not_warned(self, caplog, meanings) -> None:
        IngestCounts.from_tallies([tally(5, code=4)]).warn_about_low_codes(to_codes(meanings))

        assert caplog.records == []

    def test_the_default_in_other_words_is_still_the_default(self, caplog) -> None:
        words = ["anger", "disgusted", "afraid", "joy", "sadness", "surprised", "calm"]

        IngestCounts.from_tallies([tally(5, code=4)]).warn_about_low_codes(to_codes(words))

        assert len(caplog.records) == 1
