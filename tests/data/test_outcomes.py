import json
import pickle

import numpy as np

from fer_pipeline.data.deduplication import RecordColumns, mark_duplicates
from fer_pipeline.data.manifest import RowCounts
from fer_pipeline.data.outcomes import NO_SPLIT, DropReason, Outcome, QuarantineReason, Split

# Part of a manifest.json. Datasets with these texts exist, so all of them must stay readable.
STORED_COUNTS = """{
    "read": 6,
    "kept": {"train": {"sad": 1}, "validation": {"sad": 2}, "test": {"sad": 3}},
    "dropped": {
        "class not selected": 1,
        "usage not selected": 2,
        "voted as no face": 3,
        "no votes for any class": 4,
        "votes tied between other classes": 5,
        "copy of a test or validation image": 6,
        "copies with different labels": 7,
        "further copy with the same label": 8
    },
    "quarantined": {
        "wrong number of pixels": 1,
        "value outside 0..255": 2,
        "not a number": 3,
        "unknown emotion": 4,
        "unknown usage": 5,
        "empty field": 6,
        "broken line": 7,
        "undecodable image": 8,
        "damaged image": 9,
        "image too small": 10,
        "image too large": 11,
        "unreadable file": 12,
        "no face": 13,
        "several faces": 14,
        "low quality": 15
    },
    "written": 6
}"""


def test_the_splits_of_a_stored_manifest_are_read_and_written_again():
    counts = RowCounts.model_validate_json(STORED_COUNTS)
    assert counts.kept == {
        Split.TRAIN: {"sad": 1},
        Split.VALIDATION: {"sad": 2},
        Split.TEST: {"sad": 3},
    }
    assert json.loads(counts.model_dump_json())["kept"] == json.loads(STORED_COUNTS)["kept"]


def test_the_quarantine_reasons_of_a_stored_manifest_are_read_and_written_again():
    counts = RowCounts.model_validate_json(STORED_COUNTS)
    assert counts.quarantined == {
        reason: number for number, reason in enumerate(QuarantineReason, start=1)
    }
    assert json.loads(counts.model_dump_json()) == json.loads(STORED_COUNTS)


def test_the_drop_reasons_of_a_stored_manifest_are_read_and_written_again():
    counts = RowCounts.model_validate_json(STORED_COUNTS)
    assert counts.dropped == {reason: number for number, reason in enumerate(DropReason, start=1)}
    assert json.loads(counts.model_dump_json()) == json.loads(STORED_COUNTS)


def test_a_copy_is_dropped_for_the_first_reason_that_applies():
    train, test = Split.TRAIN.code, Split.TEST.code
    # The last copy of image 0 has three reasons to be dropped, that of image 1 two, of image 2 one.
    records = [
        (0, 0, test),
        (0, 1, train),
        (0, 0, train),
        (1, 0, train),
        (1, 1, train),
        (2, 0, train),
        (2, 0, train),
    ]
    columns = RecordColumns(
        content=np.array([(image, image) for image, _, _ in records], np.uint64),
        label=np.array([label for _, label, _ in records], np.int32),
        split=np.array([split for _, _, split in records], np.int8),
        outcome=np.full(len(records), Outcome.KEPT, np.int8),
        order=np.arange(len(records)),
    )
    outcomes, _ = mark_duplicates(columns, deduplicate=True)
    reasons = [Outcome(int(outcomes[row])).reason for row in (2, 4, 6)]
    assert reasons == [DropReason.COPY_OF_EVALUATION, DropReason.CONFLICT, DropReason.COPY]
    assert reasons == list(DropReason)[-3:]


def test_codes_of_splits_and_outcomes_are_distinct_and_fit_a_byte():
    assert [Split.TRAIN.code, Split.VALIDATION.code, Split.TEST.code] == [0, 1, 2]
    assert NO_SPLIT not in [split.code for split in Split]
    codes = [int(outcome) for outcome in Outcome]
    # Two names with the same code would be one member.
    assert len(codes) == len(Outcome.__members__)
    assert np.array(codes, np.int8).tolist() == codes


def test_each_reason_has_one_outcome():
    reasons = [outcome.reason for outcome in Outcome if outcome is not Outcome.KEPT]
    assert reasons == [*QuarantineReason, *DropReason]
    assert len({str(reason) for reason in reasons}) == len(reasons)
    assert Outcome.KEPT.reason is None
    assert {Outcome(int(outcome)) for outcome in Outcome} == set(Outcome)


def test_an_outcome_is_kept_or_dropped_or_quarantined():
    for outcome in Outcome:
        states = (outcome is Outcome.KEPT, outcome.is_dropped, outcome.is_quarantined)
        assert sum(states) == 1
        assert outcome.is_quarantined == isinstance(outcome.reason, QuarantineReason)
        assert outcome.is_dropped == isinstance(outcome.reason, DropReason)
        assert pickle.loads(pickle.dumps(outcome)) is outcome
