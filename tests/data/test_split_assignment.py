"""`mark_duplicates` and `assign_splits` against a reference in dicts, an image at a time."""

import copy
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.deduplication import RecordColumns, mark_duplicates
from fer_pipeline.data.outcomes import NO_SPLIT, Outcome, Split
from fer_pipeline.data.split_assignment import ClassThresholds, DeduplicatedRecords, assign_splits
from fer_pipeline.data.split_keys import (
    LAST_KEY,
    compute_sampling_key,
    find_bucket_of_rank,
    find_key_at_rank,
    round_share,
)

TRAIN = Split.TRAIN.code
VALIDATION = Split.VALIDATION.code
TEST = Split.TEST.code
CLASSES = 3


@dataclass(frozen=True)
class Record:
    content: int
    label: int
    split: int
    outcome: Outcome
    order: int

    @property
    def key(self) -> int:
        # Few different ones, so that images of a class often share a key.
        return (self.content * 7919) % 11 - 5


@dataclass(frozen=True)
class Assignment:
    """The outcome and the split of a record."""

    outcome: Outcome
    can_be_sampled: bool
    split: int
    copies: int


def make_columns(records: list[Record]) -> RecordColumns:
    content = [(r.content, 2**63 + r.content) for r in records]
    return RecordColumns(
        content=np.array(content, np.uint64).reshape(-1, 2),
        label=np.array([r.label for r in records], np.int32),
        split=np.array([r.split for r in records], np.int8),
        outcome=np.array([r.outcome for r in records], np.int8),
        order=np.array([r.order for r in records], np.int64),
    )


def deduplicate_records(records: list[Record], *, deduplicate: bool) -> DeduplicatedRecords:
    original = make_columns(records)
    outcome, can_be_sampled = mark_duplicates(original, deduplicate=deduplicate)
    return DeduplicatedRecords(
        key=np.array([r.key for r in records], np.int64),
        label=original.label,
        split=original.split,
        outcome=outcome,
        can_be_sampled=can_be_sampled,
    )


def assign_records(
    records: list[Record], thresholds: dict[int, ClassThresholds], *, deduplicate: bool
) -> dict[int, Assignment]:
    """Assign records with the package; return the assignment by the record's order."""
    deduplicated = deduplicate_records(records, deduplicate=deduplicate)
    outcome, can_be_sampled = deduplicated.outcome, deduplicated.can_be_sampled
    split, copies = assign_splits(deduplicated, thresholds)
    assert (outcome.dtype, can_be_sampled.dtype) == (np.dtype(np.int8), np.dtype(np.bool_))
    assert (split.dtype, copies.dtype) == (np.dtype(np.int8), np.dtype(np.int64))
    assert len(outcome) == len(can_be_sampled) == len(split) == len(copies) == len(records)
    return {
        record.order: Assignment(Outcome(int(o)), bool(d), int(s), int(c))
        for record, o, d, s, c in zip(records, outcome, can_be_sampled, split, copies, strict=True)
    }


def assign_records_slowly(
    records: list[Record], thresholds: dict[int, ClassThresholds], *, deduplicate: bool
) -> dict[int, Assignment]:
    """Assign records one by one; return the assignment by the record's order."""
    kept_copies = defaultdict(list)
    for record in records:
        if record.outcome is Outcome.KEPT:
            kept_copies[record.content].append(record)
    assignments = {}
    for record in records:
        copies = kept_copies[record.content]
        train_copies = [copy for copy in copies if copy.split == TRAIN]
        outcome, can_be_sampled = record.outcome, False
        if outcome is Outcome.KEPT and record.split == TRAIN:
            in_unused_usage = any(
                candidate.content == record.content
                and candidate.outcome is Outcome.USAGE_NOT_SELECTED
                for candidate in records
            )
            in_evaluation = len(copies) > len(train_copies) or in_unused_usage
            has_conflict = len({copy.label for copy in train_copies}) > 1
            is_further = record.order > min(copy.order for copy in train_copies)
            can_be_sampled = not in_evaluation and not has_conflict
            if deduplicate:
                can_be_sampled = can_be_sampled and not is_further
                if in_evaluation:
                    outcome = Outcome.COPY_OF_EVALUATION
                elif has_conflict:
                    outcome = Outcome.CONFLICTING_COPIES
                elif is_further:
                    outcome = Outcome.FURTHER_COPY
        assignments[record.order] = assign_record_slowly(
            record, outcome, can_be_sampled, thresholds.get(record.label)
        )
    return assignments


def assign_record_slowly(
    record: Record, outcome: Outcome, can_be_sampled: bool, thresholds: ClassThresholds | None
) -> Assignment:
    if outcome is not Outcome.KEPT:
        return Assignment(outcome, can_be_sampled, NO_SPLIT, 0)
    if record.split != TRAIN or thresholds is None:
        return Assignment(Outcome.KEPT, can_be_sampled, record.split, 1)
    if can_be_sampled and record.key < thresholds.validation_below:
        return Assignment(Outcome.KEPT, can_be_sampled, VALIDATION, 1)
    if can_be_sampled and record.key < thresholds.test_below:
        return Assignment(Outcome.KEPT, can_be_sampled, TEST, 1)
    return Assignment(
        Outcome.KEPT,
        can_be_sampled,
        TRAIN,
        thresholds.copies_per_image + (can_be_sampled and record.key < thresholds.extra_copy_below),
    )


@st.composite
def record_lists(draw: st.DrawFn, evaluation: bool = True) -> list[Record]:
    """Return records of few images, so that most have copies."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 7),
                st.sampled_from([0, 0, 0, 1, 2]),
                st.sampled_from([TRAIN] * 6 + [VALIDATION, TEST] * evaluation),
                st.sampled_from(
                    [Outcome.KEPT] * 8
                    + [Outcome.PIXEL_COUNT, Outcome.CLASS_NOT_SELECTED, Outcome.USAGE_NOT_SELECTED]
                ),
            ),
            max_size=30,
        )
    )
    orders = draw(st.permutations(range(-3, len(rows) - 3)))
    records = []
    for (content, label, split, outcome), order in zip(rows, orders, strict=True):
        if outcome is Outcome.PIXEL_COUNT:
            content, label, split = 0, -1, -1  # no image; all such records share the zero hash
        elif outcome is Outcome.CLASS_NOT_SELECTED:
            label = -1
        elif outcome is Outcome.USAGE_NOT_SELECTED:
            split = -1
        records.append(Record(content, label, split, outcome, order))
    return records


@st.composite
def threshold_tables(draw: st.DrawFn) -> dict[int, ClassThresholds]:
    """Return thresholds of some of the classes."""
    key = st.sampled_from([-(2**63), -5, -2, 0, 1, 3, 5, LAST_KEY])
    labels = draw(st.sets(st.integers(0, CLASSES - 1)))
    thresholds = {}
    for label in labels:
        validation_below, test_below, extra_copy_below = sorted(draw(st.tuples(key, key, key)))
        copies_per_image = draw(st.integers(1, 4))
        thresholds[label] = ClassThresholds(
            validation_below, test_below, extra_copy_below, copies_per_image
        )
    return thresholds


@given(record_lists(), threshold_tables(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_records_are_assigned_as_one_by_one(records, thresholds, deduplicate):
    assert assign_records(records, thresholds, deduplicate=deduplicate) == assign_records_slowly(
        records, thresholds, deduplicate=deduplicate
    )


@given(record_lists(), threshold_tables(), st.booleans(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_and_the_partitions_of_the_records_do_not_matter(
    records, thresholds, deduplicate, random
):
    assignments = assign_records(records, thresholds, deduplicate=deduplicate)
    shuffled = random.sample(records, len(records))
    assert assign_records(shuffled, thresholds, deduplicate=deduplicate) == assignments
    # All copies of an image are in the same one of three tasks.
    task_of_image = [random.randrange(3) for _ in range(8)]
    parts = [
        [record for record in shuffled if task_of_image[record.content] == k] for k in range(3)
    ]
    partial_assignments = [
        assign_records(part, thresholds, deduplicate=deduplicate) for part in parts
    ]
    assert partial_assignments[0] | partial_assignments[1] | partial_assignments[2] == assignments


@given(record_lists(), threshold_tables())
@settings(max_examples=100, deadline=None)
def test_with_deduplication_no_image_is_in_two_splits(records, thresholds):
    assignments = assign_records(records, thresholds, deduplicate=True)
    train = [r.content for r in records if assignments[r.order].split == TRAIN]
    heldout = {r.content for r in records if assignments[r.order].split in (VALIDATION, TEST)}
    assert len(train) == len(set(train))
    assert not set(train) & heldout


@given(record_lists(evaluation=False), threshold_tables())
@settings(max_examples=100, deadline=None)
def test_without_deduplication_copies_stay_together_in_sampled_splits(records, thresholds):
    assignments = assign_records(records, thresholds, deduplicate=False)
    splits_by_image = defaultdict(set)
    for record in records:
        if record.outcome is Outcome.KEPT:
            splits_by_image[record.content].add(assignments[record.order].split)
    assert all(len(splits) == 1 for splits in splits_by_image.values())


@given(record_lists(), threshold_tables(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_record_is_kept_or_dropped_for_a_reason(records, thresholds, deduplicate):
    assignments = assign_records(records, thresholds, deduplicate=deduplicate)
    kept_records = [
        assignment for assignment in assignments.values() if assignment.outcome is Outcome.KEPT
    ]
    reason_counts = Counter(
        assignment.outcome
        for assignment in assignments.values()
        if assignment.outcome is not Outcome.KEPT
    )
    assert len(kept_records) + reason_counts.total() == len(records)
    assert all(
        assignment.split in (TRAIN, VALIDATION, TEST) and assignment.copies >= 1
        for assignment in kept_records
    )
    counts_before = Counter(
        record.outcome for record in records if record.outcome is not Outcome.KEPT
    )
    allowed_reasons = (
        {Outcome.COPY_OF_EVALUATION, Outcome.CONFLICTING_COPIES, Outcome.FURTHER_COPY}
        if deduplicate
        else set()
    )
    assert counts_before <= reason_counts
    assert set(reason_counts - counts_before) <= allowed_reasons
    # Validation and test records of the source are neither dropped nor moved.
    for record in records:
        if record.outcome is Outcome.KEPT and record.split != TRAIN:
            assert assignments[record.order] == Assignment(Outcome.KEPT, False, record.split, 1)


A = 1
B = 2
C = 3
D = 4


def test_the_reasons_to_drop_a_copy_are_checked_in_their_order():
    records = [
        # Copies of a test image, with different and equal labels: the first reason.
        Record(A, 0, TEST, Outcome.KEPT, 0),
        Record(A, 0, TRAIN, Outcome.KEPT, 1),
        Record(A, 1, TRAIN, Outcome.KEPT, 2),
        Record(A, 1, TRAIN, Outcome.KEPT, 3),
        # Copies with different labels, some of them equal: the second reason, for all of them.
        Record(B, 0, TRAIN, Outcome.KEPT, 4),
        Record(B, 0, TRAIN, Outcome.KEPT, 5),
        Record(B, 2, TRAIN, Outcome.KEPT, 6),
        # Copies with the same label: the third reason, for all but the first copy.
        Record(C, 1, TRAIN, Outcome.KEPT, 9),
        Record(C, 1, TRAIN, Outcome.KEPT, 7),
        Record(C, 1, TRAIN, Outcome.KEPT, 8),
        # A record that is dropped for another reason is not a copy.
        Record(D, 0, TRAIN, Outcome.KEPT, 11),
        Record(D, -1, TRAIN, Outcome.CLASS_NOT_SELECTED, 10),
    ]
    assignments = assign_records(records, {}, deduplicate=True)
    assert {order: assignment.outcome for order, assignment in assignments.items()} == {
        0: Outcome.KEPT,
        1: Outcome.COPY_OF_EVALUATION,
        2: Outcome.COPY_OF_EVALUATION,
        3: Outcome.COPY_OF_EVALUATION,
        4: Outcome.CONFLICTING_COPIES,
        5: Outcome.CONFLICTING_COPIES,
        6: Outcome.CONFLICTING_COPIES,
        7: Outcome.KEPT,
        8: Outcome.FURTHER_COPY,
        9: Outcome.FURTHER_COPY,
        10: Outcome.CLASS_NOT_SELECTED,
        11: Outcome.KEPT,
    }
    assert [order for order, assignment in assignments.items() if assignment.can_be_sampled] == [
        7,
        11,
    ]


def test_copies_within_test_and_validation_are_kept():
    records = [Record(A, 0, TEST, Outcome.KEPT, 0), Record(A, 1, TEST, Outcome.KEPT, 1)]
    records.append(Record(A, 0, VALIDATION, Outcome.KEPT, 2))
    assert [
        assignment.split for assignment in assign_records(records, {}, deduplicate=True).values()
    ] == [
        TEST,
        TEST,
        VALIDATION,
    ]


def test_no_records_give_no_assignments():
    assert assign_records([], {0: ClassThresholds(0, 0, 0, 1)}, deduplicate=True) == {}
    assert assign_records([], {}, deduplicate=False) == {}


@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_input_columns_are_not_changed(deduplicate):
    records = [Record(A, 0, TRAIN, Outcome.KEPT, 0), Record(A, 0, TRAIN, Outcome.KEPT, 1)]
    candidates, before = make_columns(records), make_columns(records)
    outcome, can_be_sampled = mark_duplicates(candidates, deduplicate=deduplicate)
    key = np.array([record.key for record in records], np.int64)
    deduplicated = DeduplicatedRecords(
        key, candidates.label, candidates.split, outcome, can_be_sampled
    )
    decided_before = copy.deepcopy(deduplicated)
    assign_splits(deduplicated, {0: ClassThresholds(LAST_KEY, LAST_KEY, LAST_KEY, 2)})
    for arrays, arrays_before in ((candidates, before), (deduplicated, decided_before)):
        for name, column in vars(arrays_before).items():
            np.testing.assert_array_equal(getattr(arrays, name), column)


def test_sampled_splits_have_the_exact_sizes_in_each_class():
    rng = np.random.default_rng(5)
    sizes = {0: 137, 1: 11, 2: 400}
    label = np.repeat(np.array(list(sizes), np.int32), list(sizes.values()))
    contents = [number.to_bytes(16, "big") for number in range(len(label))]
    key = np.array([compute_sampling_key(content, 3) for content in contents])
    thresholds, expected = {}, {}
    for class_index, size in sizes.items():
        validation, test = round_share(0.15, size), round_share(0.1, size)
        extra = round_share(0.5, size - validation - test)
        ranks = (validation, validation + test, validation + test + extra)
        keys = sorted(key[label == class_index].tolist())
        histogram = Counter(k >> 52 for k in keys)
        positions = [find_bucket_of_rank(histogram, rank) for rank in ranks]
        cut_keys = []
        for position, rank in zip(positions, ranks, strict=True):
            assert position is not None
            bucket, _ = position
            keys_in_bucket = [k for k in keys if k >> 52 == bucket]
            cut_keys.append(find_key_at_rank(histogram, {bucket: keys_in_bucket}, rank))
        validation_below, test_below, extra_copy_below = cut_keys
        thresholds[class_index] = ClassThresholds(
            validation_below, test_below, extra_copy_below, copies_per_image=2
        )
        expected[class_index] = (size - validation - test, validation, test, extra)
    order = rng.permutation(len(label))
    candidates = RecordColumns(
        content=np.stack([order, order], axis=1).astype(np.uint64),
        label=label[order],
        split=np.full(len(label), TRAIN, np.int8),
        outcome=np.full(len(label), Outcome.KEPT, np.int8),
        order=order,
    )
    outcome, can_be_sampled = mark_duplicates(candidates, deduplicate=True)
    deduplicated = DeduplicatedRecords(
        key[order], candidates.label, candidates.split, outcome, can_be_sampled
    )
    split, copies = assign_splits(deduplicated, thresholds)
    for class_index, (train, validation, test, extra) in expected.items():
        in_class = candidates.label == class_index
        assert np.bincount(split[in_class], minlength=3).tolist() == [train, validation, test]
        assert Counter(copies[in_class & (split == TRAIN)].tolist()) == {3: extra, 2: train - extra}
        assert set(copies[in_class & (split != TRAIN)].tolist()) == {1}
