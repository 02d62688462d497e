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


def make_tally(
    n: int,
    reason: QuarantineReason | DropReason | None = None,
    *,
    source: str = "a.csv",
    block: int = 0,
    split: Split | None = Split.TRAIN,
    label: int = 0,
    code: int = 6,
    hash_sum: int = 0,
    detail: str | None = None,
) -> dict[str, Any]:
    """Return what `count_records` returns for a group; `hash_sum` is the sum of its hashes."""
    [outcome] = [outcome for outcome in Outcome if outcome.reason is reason]
    return {
        "source": source,
        "block": block,
        "outcome": int(outcome),
        "split": NO_SPLIT if split is None else split.code,
        "label": label,
        "n": n,
        "code": code,
        "low": hash_sum % 2**32,
        "high": hash_sum >> 32,
        "detail": detail,
    }


# Two files, one of them in three blocks. The groups are in arbitrary order.
TALLIES = [
    make_tally(3, source="b.csv", block=900, label=1, code=1, hash_sum=2**63),
    make_tally(5, source="b.csv", label=0, code=0, hash_sum=2**63 + 7),
    make_tally(2, source="b.csv", label=1, code=1),
    make_tally(4, source="b.csv", split=Split.TEST, label=1, code=1),
    make_tally(1, QuarantineReason.PIXEL_RANGE, source="b.csv", label=0, code=0, hash_sum=3),
    make_tally(
        2, QuarantineReason.BROKEN, source="b.csv", block=400, split=None, label=-1, code=-1
    ),
    make_tally(6, DropReason.CLASS, source="a.csv", split=None, label=-1, code=5),
    make_tally(7, split=Split.VALIDATION, source="a.csv", label=2, code=2),
    make_tally(8, DropReason.COPY, source="a.csv", label=0, code=0, hash_sum=2**32 - 1),
    make_tally(9, QuarantineReason.PIXEL_RANGE, source="a.csv", label=2, code=2, hash_sum=1),
]


class TestFromTallies:
    def test_every_record_is_counted_once(self) -> None:
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

    def test_no_tallies_give_empty_counts(self) -> None:
        assert IngestCounts.from_tallies([]) == IngestCounts()

    @given(st.permutations(TALLIES))
    def test_the_order_of_the_tallies_does_not_matter(self, tallies) -> None:
        assert IngestCounts.from_tallies(tallies) == IngestCounts.from_tallies(TALLIES)

    @given(
        st.lists(
            st.builds(
                make_tally,
                st.integers(0, 50),
                st.sampled_from([None, *QuarantineReason, *DropReason]),
                source=st.sampled_from(["a", "b", "c"]),
                block=st.integers(0, 4),
                split=st.sampled_from(list(Split)),
                label=st.integers(0, 6),
                hash_sum=st.integers(0, 2**64 - 1),
            )
        )
    )
    def test_the_records_read_are_those_kept_dropped_or_quarantined(self, tallies) -> None:
        ingest_counts = IngestCounts.from_tallies(tallies)

        kept_count = sum(ingest_counts.train_by_class.values()) + sum(
            ingest_counts.heldout_by_split.values()
        )
        dropped_count, bad_count = (
            sum(ingest_counts.dropped.values()),
            sum(ingest_counts.quarantined.values()),
        )
        assert ingest_counts.read == kept_count + dropped_count + bad_count
        assert ingest_counts.read == sum(source.records for source in ingest_counts.sources)
        assert bad_count == sum(source.quarantined for source in ingest_counts.sources)
        assert sum(int(source.fingerprint, 16) for source in ingest_counts.sources) % 2**64 == (
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
    def test_it_consists_of_the_last_64_bits(self, total, text) -> None:
        assert format_checksum(total) == text

    @given(st.lists(st.integers(0, 2**64 - 1)))
    def test_the_order_of_the_sums_does_not_matter(self, hashes) -> None:
        # A partial sum may arrive as a signed number, as Spark's are.
        half = len(hashes) // 2
        left, right = sum(hashes[:half]), sum(hashes[half:])
        signed = (right + 2**63) % 2**64 - 2**63

        assert format_checksum(left + signed) == format_checksum(sum(hashes))


CODES = {str(code): name for code, name in enumerate(FER2013)}


def to_codes(names: list[str]) -> dict[str, str]:
    """Return the emotion of each code as the configuration holds it."""
    return {str(code): canonical_emotion(name) for code, name in enumerate(names)}


class TestRequireUsableRecords:
    def test_usable_records_pass_without_a_warning(self, caplog) -> None:
        ingest_counts = IngestCounts.from_tallies(
            [make_tally(99), make_tally(1, QuarantineReason.EMPTY)]
        )
        ingest_counts.require_usable_records(0.01)
        ingest_counts.warn_about_low_codes(CODES)

        assert caplog.records == []

    @pytest.mark.parametrize(("bad_count", "total"), [(29, 100), (57, 100), (1, 3), (0, 7), (7, 7)])
    def test_exactly_the_allowed_number_of_bad_rows_passes(self, bad_count, total) -> None:
        """Their fraction is hardly ever a floating-point number."""
        ingest_counts = IngestCounts.from_tallies(
            [
                make_tally(total - bad_count),
                make_tally(1, split=Split.TEST),
                make_tally(bad_count, QuarantineReason.EMPTY),
            ]
        )
        ingest_counts.require_usable_records(bad_count / (total + 1))

    def test_more_bad_rows_than_allowed_are_an_error(self) -> None:
        ingest_counts = IngestCounts.from_tallies(
            [
                make_tally(70, source="a.csv"),
                make_tally(1, QuarantineReason.EMPTY, source="a.csv"),
                make_tally(
                    9, QuarantineReason.PIXEL_RANGE, source="b.csv", split=None, label=-1, code=-1
                ),
                make_tally(
                    20, QuarantineReason.BROKEN, source="b.csv", split=None, label=-1, code=-1
                ),
            ]
        )

        with pytest.raises(TooManyBadRowsError) as caught:
            ingest_counts.require_usable_records(0.29)

        message = str(caught.value)
        assert message.startswith("30 of 100 records are bad, ")
        assert "input.max_quarantined_fraction 0.29" in message
        assert "(broken line: 20, value outside 0..255: 9, empty field: 1)" in message
        assert "most of them in b.csv" in message

    def test_one_bad_row_too_many_of_a_hundred_million_is_an_error(self) -> None:
        rows = 10**8
        ingest_counts = IngestCounts.from_tallies(
            [
                make_tally(rows - rows // 100 - 1),
                make_tally(rows // 100 + 1, QuarantineReason.EMPTY),
            ]
        )

        with pytest.raises(TooManyBadRowsError, match=r"^1000001 of 100000000 records are bad"):
            ingest_counts.require_usable_records(0.01)

    def test_the_error_about_bad_rows_names_their_reason(self) -> None:
        with pytest.raises(TooManyBadRowsError, match=r"\(empty field: 2\)"):
            IngestCounts.from_tallies(
                [make_tally(2, QuarantineReason.EMPTY)]
            ).require_usable_records(0.01)

    def test_csv_files_with_unknown_losses_are_limited_like_rows(self) -> None:
        problem = "cannot be read: Input/output error; the records from here to the end are missing"
        tallies = [make_tally(5, source=f"{n}.csv") for n in range(9)]
        tallies += [make_tally(9000, source="bad.csv", split=split) for split in Split]
        tallies.append(make_tally(1, QuarantineReason.UNREADABLE, source="bad.csv", detail=problem))
        ingest_counts = IngestCounts.from_tallies(tallies)

        assert ingest_counts.file_problems == {"bad.csv": problem}
        ingest_counts.require_usable_records(0.1)
        with pytest.raises(TooManyBadRowsError) as error:
            ingest_counts.require_usable_records(0.09)
        assert str(error.value).startswith(f"bad.csv: {problem} (1 of 10 CSV files cannot be read ")

    def test_images_with_notes_are_counted_by_remark(self) -> None:
        tallies = [
            make_tally(3, detail="all pixels equal"),
            make_tally(2, label=1, detail="damaged image; all pixels equal"),
            make_tally(5),
        ]
        counts = IngestCounts.from_tallies(tallies)
        assert counts.notes == {"all pixels equal": 5, "damaged image": 2}
        assert counts.file_problems == {}

    def test_no_training_rows_are_an_error(self) -> None:
        ingest_counts = IngestCounts.from_tallies(
            [
                make_tally(3, split=Split.TEST),
                make_tally(2, split=Split.VALIDATION),
                make_tally(4, DropReason.CLASS),
                make_tally(5, DropReason.COPY_OF_EVALUATION),
            ]
        )

        with pytest.raises(DatasetError) as caught:
            ingest_counts.require_usable_records(0.01)

        message = str(caught.value)
        assert message.startswith("no training rows are left of 14 records ")
        assert "class not selected: 4, copy of a test or validation image: 5;" in message
        assert "validation and test: 5" in message
        assert message.endswith("check classes and split.usage_to_split")

    def test_the_error_says_that_nothing_was_dropped(self) -> None:
        with pytest.raises(DatasetError, match=r"of 3 records \(dropped: none; validation and"):
            IngestCounts.from_tallies([make_tally(3, split=Split.TEST)]).require_usable_records(
                0.01
            )


class TestLowCodesWarning:
    """Warning about files that number five emotions in an order of their own."""

    @pytest.mark.parametrize("code", [0, 4])
    def test_the_warning_names_the_file_and_its_largest_code(self, caplog, code) -> None:
        ingest_counts = IngestCounts.from_tallies(
            [
                make_tally(5, source="five.csv", code=0),
                make_tally(5, source="five.csv", code=code, split=Split.TEST),
                make_tally(5, source="seven.csv", code=5),
            ]
        )

        with caplog.at_level(logging.WARNING):
            ingest_counts.warn_about_low_codes(CODES)

        [record] = caplog.records
        assert record.levelname == "WARNING"
        message = record.getMessage()
        assert message.startswith(f"five.csv: its codes never exceed {code}, ")
        assert "angry, disgust, fear, happy, sad" in message
        assert "input.emotions" in message

    def test_names_of_emotions_cause_no_warning(self, caplog) -> None:
        ingest_counts = IngestCounts.from_tallies([make_tally(5, source="faces/angry", code=-1)])
        ingest_counts.warn_about_low_codes(CODES)

        assert caplog.records == []

    @pytest.mark.parametrize(
        "emotions",
        [
            ["anger", "disgust", "sad", "happiness", "surprise"],
            ["angry", "disgust", "fear", "happy", "sad"],
        ],
    )
    def test_a_configuration_of_the_codes_prevents_the_warning(self, caplog, emotions) -> None:
        IngestCounts.from_tallies([make_tally(5, code=4)]).warn_about_low_codes(to_codes(emotions))

        assert caplog.records == []

    def test_synonyms_of_the_default_emotions_do_not_prevent_the_warning(self, caplog) -> None:
        synonyms = ["anger", "disgusted", "afraid", "joy", "sadness", "surprised", "calm"]

        IngestCounts.from_tallies([make_tally(5, code=4)]).warn_about_low_codes(to_codes(synonyms))

        assert len(caplog.records) == 1
