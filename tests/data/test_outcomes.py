import pickle

import numpy as np

from fer_pipeline.data.outcomes import NO_SPLIT, DropReason, Outcome, QuarantineReason, Split


def test_splits_are_the_folders_that_readers_know():
    assert [str(split) for split in Split] == ["train", "validation", "test"]


def test_each_way_to_the_quarantine_has_its_own_text():
    assert [str(reason) for reason in QuarantineReason] == [
        "wrong number of pixels",
        "value outside 0..255",
        "not a number",
        "unknown emotion",
        "unknown usage",
        "empty field",
        "broken line",
        "undecodable image",
        "image too small",
    ]


def test_each_cause_has_its_own_text():
    assert [str(cause) for cause in DropReason] == [
        "class not selected",
        "usage not selected",
        "voted as no face",
        "no votes for any class",
        "votes tied between other classes",
        "copy of a test or validation image",
        "copies with different labels",
        "further copy with the same label",
    ]


def test_causes_stand_in_the_order_in_which_they_are_tried():
    assert list(DropReason)[-3:] == [
        DropReason.COPY_OF_EVALUATION,
        DropReason.CONFLICT,
        DropReason.COPY,
    ]


def test_codes_of_splits_and_outcomes_are_distinct_and_fit_a_byte():
    assert [split.code for split in Split] == [0, 1, 2]
    assert NO_SPLIT not in [split.code for split in Split]
    codes = [int(outcome) for outcome in Outcome]
    assert len(set(codes)) == len(codes)
    assert np.array(codes, np.int8).tolist() == codes


def test_each_reason_has_one_outcome():
    reasons = [outcome.reason for outcome in Outcome if outcome is not Outcome.KEPT]
    assert reasons == [*QuarantineReason, *DropReason]
    assert len({str(reason) for reason in reasons}) == len(reasons)
    assert Outcome.KEPT.reason is None
    assert {Outcome(int(outcome)) for outcome in Outcome} == set(Outcome)


def test_an_outcome_is_kept_or_dropped_or_quarantined():
    for outcome in Outcome:
        fates = (outcome is Outcome.KEPT, outcome.is_dropped, outcome.is_quarantined)
        assert sum(fates) == 1
        assert outcome.is_quarantined == isinstance(outcome.reason, QuarantineReason)
        assert outcome.is_dropped == isinstance(outcome.reason, DropReason)
        assert pickle.loads(pickle.dumps(outcome)) is outcome
