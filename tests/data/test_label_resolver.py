import pickle

import numpy as np
import pytest

from fer_pipeline.data.emotions import FER2013, LabelEncoder
from fer_pipeline.data.label_resolver import (
    NO_LABEL,
    LabelResolver,
    ResolvedLabel,
    ResolvedLabels,
    apply_votes,
)
from fer_pipeline.data.outcomes import NO_SPLIT, Outcome, Split
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError

CODES = {str(code): name for code, name in enumerate(FER2013)}
USAGE = {
    "Training": Split.TRAIN,
    "PublicTest": Split.VALIDATION,
    "PrivateTest": Split.TEST,
    "Spare": None,
}


def make_resolver(classes: tuple[str, ...] = FER2013, usage: dict | None = USAGE) -> LabelResolver:
    return LabelResolver(LabelEncoder(CODES, classes), usage)


def to_decisions(resolved: ResolvedLabels) -> list[ResolvedLabel]:
    """Return the columns row by row."""
    columns = (resolved.labels, resolved.splits, resolved.codes, resolved.drops)
    assert [column.dtype for column in columns] == [np.int32, np.int8, np.int32, np.int8]
    errors = resolved.errors
    decisions = []
    for row, (label, split, code, drop) in enumerate(zip(*columns, strict=True)):
        outcome, error = Outcome(int(drop)), Outcome(int(errors.outcomes[row]))
        assert Outcome.KEPT in (outcome, error)
        assert (row in errors.details) == error.is_quarantined == (error != Outcome.KEPT)
        assert outcome.is_dropped == (outcome != Outcome.KEPT)
        decisions.append(
            ResolvedLabel(
                label=None if label == NO_LABEL else int(label),
                split=None if split == NO_SPLIT else list(Split)[split],
                code=None if code == NO_LABEL else int(code),
                outcome=max(outcome, error),
                detail=errors.details.get(row),
            )
        )
    return decisions


@pytest.mark.parametrize(
    ("emotion", "usage", "expected"),
    [
        ("3", "Training", ResolvedLabel(3, Split.TRAIN, 3)),
        ("6", "PublicTest", ResolvedLabel(6, Split.VALIDATION, 6)),
        ("0", "PrivateTest", ResolvedLabel(0, Split.TEST, 0)),
        (" 3 ", "Training\r", ResolvedLabel(3, Split.TRAIN, 3)),
        ("3", " trAINing ", ResolvedLabel(3, Split.TRAIN, 3)),
        ("happiness", "Training", ResolvedLabel(3, Split.TRAIN)),
        (" Anger", "Training", ResolvedLabel(0, Split.TRAIN)),
        ("3", "Spare", ResolvedLabel(3, None, 3, outcome=Outcome.USAGE_NOT_SELECTED)),
        ("3", "spare", ResolvedLabel(3, None, 3, outcome=Outcome.USAGE_NOT_SELECTED)),
        (
            "7",
            "Training",
            ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail="emotion '7'"),
        ),
        (
            "contempt",
            "Training",
            ResolvedLabel(None, Split.TRAIN, outcome=Outcome.CLASS_NOT_SELECTED),
        ),
        ("3", "Test", ResolvedLabel(outcome=Outcome.UNKNOWN_USAGE, detail="usage 'Test'")),
        ("", "Training", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion")),
        (" \t", "Training", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion")),
        (None, "Training", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion")),
        ("3", "", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no usage")),
        ("3", "\r", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no usage")),
        ("3", None, ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no usage")),
        # The label is checked first.
        ("", "", ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion")),
        ("x", "Spare", ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail="emotion 'x'")),
        (
            "3.0",
            "Training",
            ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail="emotion '3.0'"),
        ),
    ],
)
def test_a_label_and_a_usage_are_resolved_together(emotion, usage, expected):
    assert make_resolver().resolve_pair(emotion, usage) == expected
    # In a batch: twice, with a different pair between.
    resolved = make_resolver().resolve([emotion, "3", emotion], [usage, "Training", usage])
    assert to_decisions(resolved) == [expected, ResolvedLabel(3, Split.TRAIN, 3), expected]


@pytest.mark.parametrize(
    ("emotion", "expected"),
    [
        ("5", ResolvedLabel(0, Split.TRAIN, 5)),
        ("Anger", ResolvedLabel(1, Split.TRAIN)),
        ("3", ResolvedLabel(None, Split.TRAIN, 3, outcome=Outcome.CLASS_NOT_SELECTED)),
        ("fear", ResolvedLabel(None, Split.TRAIN, outcome=Outcome.CLASS_NOT_SELECTED)),
        ("7", ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail="emotion '7'")),
    ],
)
def test_selected_classes_are_renumbered_and_others_dropped(emotion, expected):
    assert make_resolver(("surprise", "angry")).resolve_pair(emotion, "Training") == expected


def test_an_unselected_class_is_the_reason_before_an_unselected_usage():
    assert (
        make_resolver(("angry", "sad")).resolve_pair("3", "Spare").outcome
        is Outcome.CLASS_NOT_SELECTED
    )


@pytest.mark.parametrize("usage", [None, "", "Training", "whatever"])
def test_without_a_usage_mapping_every_row_is_training(usage):
    assert make_resolver(usage=None).resolve_pair("3", usage) == ResolvedLabel(3, Split.TRAIN, 3)


def test_codes_follow_the_configuration_and_are_returned_unchanged():
    emotion_of_code = {"0": "angry", "1": "disgust", "2": "sad", "3": "surprise", "4": "happy"}
    resolver = LabelResolver(LabelEncoder(emotion_of_code, ["happy", "sad"]), None)
    assert [resolver.resolve_pair(code, None) for code in "024"] == [
        ResolvedLabel(None, Split.TRAIN, 0, outcome=Outcome.CLASS_NOT_SELECTED),
        ResolvedLabel(1, Split.TRAIN, 2),
        ResolvedLabel(0, Split.TRAIN, 4),
    ]


def test_many_different_labels_do_not_fill_the_memory():
    resolver = make_resolver()
    before = pickle.dumps(resolver)
    for start in range(0, 25_000, 500):
        emotions = [f"x{number}" for number in range(start, start + 500)]
        resolved = resolver.resolve(emotions, ["Training"] * 500)
        assert set(resolved.errors.outcomes.tolist()) == {Outcome.UNKNOWN_EMOTION}
        assert len(resolved.errors.details) == 500
    assert pickle.dumps(resolver) == before
    assert resolver.resolve_pair("3", "Training") == ResolvedLabel(3, Split.TRAIN, 3)


def test_no_records_have_no_labels():
    assert to_decisions(make_resolver().resolve([], [])) == []


def test_an_error_contains_only_a_part_of_a_long_text():
    for emotion, usage in (("x" * 10_000, "Training"), ("3", "x" * 10_000)):
        detail = make_resolver().resolve_pair(emotion, usage).detail
        assert detail is not None
        assert len(detail) < 100


# Votes for happy and sad. The tests do not use the first two records.
VOTES = Votes(
    path="v.csv",
    counts=np.array([[9, 0], [9, 0], [1, 3], [2, 2], [0, 0], [5, 4], [0, 7]], np.uint8),
    no_face=np.array([False, False, False, False, False, True, False]),
    usage_codes=np.array([0, 0, 1, 1, 1, 1, 0], np.uint8),
    usage_names=("privatetest", "training"),
)
SPLITS = {"Training": Split.TRAIN, "PrivateTest": None}


def resolve_with_votes(
    *pairs: tuple[str | None, str | None], first: int = 2
) -> list[ResolvedLabel]:
    emotions, usages = zip(*pairs, strict=True)
    resolver = LabelResolver(LabelEncoder(CODES, ["happy", "sad"]), SPLITS)
    numbers = np.arange(first, first + len(pairs))
    resolved = resolver.resolve(emotions, usages)
    return to_decisions(apply_votes(resolved, VOTES, numbers, usages, "a.csv"))


def test_votes_replace_the_label_and_decide_whether_it_is_selected():
    assert resolve_with_votes(
        ("3", "Training"), ("4", "Training"), ("3", "training"), ("3", "Training")
    ) == [
        ResolvedLabel(1, Split.TRAIN, 3),
        ResolvedLabel(1, Split.TRAIN, 4),
        ResolvedLabel(None, Split.TRAIN, 3, outcome=Outcome.NO_VOTES),
        ResolvedLabel(None, Split.TRAIN, 3, outcome=Outcome.VOTED_NO_FACE),
    ]
    # The source says fear, which is no class.
    assert resolve_with_votes(("2", "Training"), ("2", "Training")) == [
        ResolvedLabel(1, Split.TRAIN, 2),
        ResolvedLabel(None, Split.TRAIN, 2, outcome=Outcome.TIED_VOTES),
    ]


def test_votes_neither_repair_a_row_nor_select_its_usage():
    assert resolve_with_votes(("9", "Training"), (None, None)) == [
        ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail="emotion '9'"),
        ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion"),
    ]
    assert resolve_with_votes(("2", "PrivateTest"), first=6) == [
        ResolvedLabel(1, None, 2, outcome=Outcome.USAGE_NOT_SELECTED),
    ]


def test_votes_for_other_images_are_refused():
    with pytest.raises(InputError, match=r"record 3 .* 'training', in a\.csv it has 'privatetest'"):
        resolve_with_votes(("3", "Training"), ("3", "PrivateTest"))
