import numpy as np
import pytest

from fer_pipeline.data.emotions import FER2013, LabelEncoder
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.record import (
    EXCERPT,
    LabelDecision,
    LabelResolver,
    RawRecord,
    RecordError,
    apply_votes,
    excerpt,
)
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError

CODES = {str(code): name for code, name in enumerate(FER2013)}
USAGE = {
    "Training": Split.TRAIN,
    "PublicTest": Split.VALIDATION,
    "PrivateTest": Split.TEST,
    "Spare": None,
}


def judge(classes: tuple[str, ...] = FER2013, usage: dict | None = USAGE) -> LabelResolver:
    return LabelResolver(LabelEncoder(CODES, classes), usage)


@pytest.mark.parametrize(
    ("emotion", "usage", "expected"),
    [
        ("3", "Training", LabelDecision(3, Split.TRAIN, 3)),
        ("6", "PublicTest", LabelDecision(6, Split.VALIDATION, 6)),
        ("0", "PrivateTest", LabelDecision(0, Split.TEST, 0)),
        (" 3 ", "Training\r", LabelDecision(3, Split.TRAIN, 3)),
        ("3", " trAINing ", LabelDecision(3, Split.TRAIN, 3)),
        ("happiness", "Training", LabelDecision(3, Split.TRAIN)),
        (" Anger", "Training", LabelDecision(0, Split.TRAIN)),
        ("3", "Spare", LabelDecision(3, None, 3, cause=DropReason.USAGE)),
        ("3", "spare", LabelDecision(3, None, 3, cause=DropReason.USAGE)),
        (
            "7",
            "Training",
            LabelDecision(fault=RecordError(QuarantineReason.EMOTION, "emotion '7'")),
        ),
        ("contempt", "Training", LabelDecision(None, Split.TRAIN, cause=DropReason.CLASS)),
        ("3", "Test", LabelDecision(fault=RecordError(QuarantineReason.USAGE, "usage 'Test'"))),
        ("", "Training", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion"))),
        (" \t", "Training", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion"))),
        (None, "Training", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion"))),
        ("3", "", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no usage"))),
        ("3", "\r", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no usage"))),
        ("3", None, LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no usage"))),
        # The label is looked at first.
        ("", "", LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion"))),
        ("x", "Spare", LabelDecision(fault=RecordError(QuarantineReason.EMOTION, "emotion 'x'"))),
        (
            "3.0",
            "Training",
            LabelDecision(fault=RecordError(QuarantineReason.EMOTION, "emotion '3.0'")),
        ),
    ],
)
def test_a_label_and_a_usage_have_one_verdict(emotion, usage, expected):
    made = judge()
    assert made(emotion, usage) == expected
    # Known by now, and still the same.
    assert made(emotion, usage) == expected


@pytest.mark.parametrize(
    ("emotion", "expected"),
    [
        ("5", LabelDecision(0, Split.TRAIN, 5)),
        ("Anger", LabelDecision(1, Split.TRAIN)),
        ("3", LabelDecision(None, Split.TRAIN, 3, cause=DropReason.CLASS)),
        ("fear", LabelDecision(None, Split.TRAIN, cause=DropReason.CLASS)),
        ("7", LabelDecision(fault=RecordError(QuarantineReason.EMOTION, "emotion '7'"))),
    ],
)
def test_a_subset_renumbers_its_classes_and_drops_the_others(emotion, expected):
    assert judge(("surprise", "angry"))(emotion, "Training") == expected


def test_a_row_that_is_out_twice_is_out_by_its_class():
    assert judge(("angry", "sad"))("3", "Spare").cause is DropReason.CLASS


@pytest.mark.parametrize("usage", [None, "", "Training", "whatever"])
def test_where_usage_decides_nothing_every_row_is_training(usage):
    assert judge(usage=None)("3", usage) == LabelDecision(3, Split.TRAIN, 3)


@pytest.mark.parametrize("emotion", [None, "", "3", "no emotion at all"])
def test_where_no_label_is_needed_none_is_looked_at(emotion):
    made = LabelResolver(LabelEncoder(CODES, FER2013), None, labelled=False)
    assert made(emotion, None) == LabelDecision()


def test_codes_go_by_the_source_and_are_told_as_they_stand_there():
    reference_e = {"0": "angry", "1": "disgust", "2": "sad", "3": "surprise", "4": "happy"}
    made = LabelResolver(LabelEncoder(reference_e, ["happy", "sad"]), None)
    assert [made(code, None) for code in "024"] == [
        LabelDecision(None, Split.TRAIN, 0, cause=DropReason.CLASS),
        LabelDecision(1, Split.TRAIN, 2),
        LabelDecision(0, Split.TRAIN, 4),
    ]


def test_endless_different_labels_do_not_fill_the_memory():
    made = judge()
    for number in range(25_000):
        assert made(f"x{number}", "Training").fault.reason is QuarantineReason.EMOTION
    assert len(made._known) <= 10_001
    assert made("3", "Training") == LabelDecision(3, Split.TRAIN, 3)


def test_a_fault_shows_a_long_text_in_part():
    for verdict in (judge()("x" * 10_000, "Training"), judge()("3", "x" * 10_000)):
        assert len(verdict.fault.detail) < 100


# Of happy and sad, after two records of which nothing is asked.
VOTES = Votes(
    path="v.csv",
    counts=np.array([[9, 0], [9, 0], [1, 3], [2, 2], [0, 0], [5, 4], [0, 7]], np.uint8),
    no_face=np.array([False, False, False, False, False, True, False]),
    usage=np.array([0, 0, 1, 1, 1, 1, 0], np.uint8),
    usages=("privatetest", "training"),
)
SPLITS = {"Training": Split.TRAIN, "PrivateTest": None}


def voted(*said: tuple[str | None, str | None], first: int = 2) -> list[LabelDecision]:
    raw = [RawRecord(emotion, usage, b"", None) for emotion, usage in said]
    made = LabelResolver(LabelEncoder(CODES, ["happy", "sad"]), SPLITS)
    return apply_votes(raw, [made(r.emotion, r.usage) for r in raw], VOTES, first, "a.csv")


def test_votes_replace_the_label_and_whether_it_is_a_class():
    assert voted(("3", "Training"), ("4", "Training"), ("3", "training"), ("3", "Training")) == [
        LabelDecision(1, Split.TRAIN, 3),
        LabelDecision(1, Split.TRAIN, 4),
        LabelDecision(None, Split.TRAIN, 3, cause=DropReason.NO_VOTES),
        LabelDecision(None, Split.TRAIN, 3, cause=DropReason.NO_FACE),
    ]
    # The source says fear, which is no class.
    assert voted(("2", "Training"), ("2", "Training")) == [
        LabelDecision(1, Split.TRAIN, 2),
        LabelDecision(None, Split.TRAIN, 2, cause=DropReason.TIE),
    ]


def test_votes_do_not_mend_a_row_nor_bring_back_a_usage():
    assert voted(("9", "Training"), (None, None)) == [
        LabelDecision(fault=RecordError(QuarantineReason.EMOTION, "emotion '9'")),
        LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion")),
    ]
    assert voted(("2", "PrivateTest"), first=6) == [
        LabelDecision(1, None, 2, cause=DropReason.USAGE),
    ]


def test_votes_for_other_images_are_refused():
    with pytest.raises(InputError, match=r"record 3 .* 'training', in a\.csv it has 'privatetest'"):
        voted(("3", "Training"), ("3", "PrivateTest"))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"", ""),
        (b"0,1 2 3,Training", "0,1 2 3,Training"),
        (b"0\t1\r\n\0\x1b[31m", "0?1????[31m"),
        ("gr\u00fc\u00dfe".encode(), "gr\u00fc\u00dfe"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"x" * EXCERPT, "x" * EXCERPT),
        (
            b"0," + b"12 " * 2304 + b",PrivateTest",
            "0," + "12 " * 17 + "12 ... 2 12 12 ,PrivateTest",
        ),
    ],
)
def test_an_excerpt_is_short_and_printable(line, shown):
    assert excerpt(line) == shown
    assert len(excerpt(line)) <= EXCERPT
