from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.split_assignment import KEPT, OUTCOMES, SPLITS


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
    assert [SPLITS.index(split) for split in Split] == [0, 1, 2]
    assert sorted(OUTCOMES.index(why) for why in (*QuarantineReason, *DropReason)) == list(
        range(len(OUTCOMES))
    )
    assert len({str(why) for why in OUTCOMES}) == len(OUTCOMES) < 128
    assert KEPT not in range(len(OUTCOMES))
