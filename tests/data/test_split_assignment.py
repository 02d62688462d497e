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

TRAIN, VALIDATION, TEST = (split.code for split in Split)
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
class Fate:
    """What becomes of a record."""

    outcome: Outcome
    drawable: bool
    split: int
    copies: int


def columns(records: list[Record]) -> RecordColumns:
    content = [(r.content, 2**63 + r.content) for r in records]
    return RecordColumns(
        content=np.array(content, np.uint64).reshape(-1, 2),
        label=np.array([r.label for r in records], np.int32),
        split=np.array([r.split for r in records], np.int8),
        outcome=np.array([r.outcome for r in records], np.int8),
        order=np.array([r.order for r in records], np.int64),
    )


def decide(records: list[Record], *, deduplicate: bool) -> DeduplicatedRecords:
    undecided = columns(records)
    outcome, can_be_sampled = mark_duplicates(undecided, deduplicate=deduplicate)
    return DeduplicatedRecords(
        key=np.array([r.key for r in records], np.int64),
        label=undecided.label,
        split=undecided.split,
        outcome=outcome,
        can_be_sampled=can_be_sampled,
    )


def fates(
    records: list[Record], cuts: dict[int, ClassThresholds], *, deduplicate: bool
) -> dict[int, Fate]:
    """What the modules say of each record, by the record's order."""
    decided = decide(records, deduplicate=deduplicate)
    outcome, drawable = decided.outcome, decided.can_be_sampled
    split, copies = assign_splits(decided, cuts)
    assert (outcome.dtype, drawable.dtype) == (np.int8, np.bool_)
    assert (split.dtype, copies.dtype) == (np.int8, np.int64)
    assert len(outcome) == len(drawable) == len(split) == len(copies) == len(records)
    return {
        record.order: Fate(Outcome(int(o)), bool(d), int(s), int(c))
        for record, o, d, s, c in zip(records, outcome, drawable, split, copies, strict=True)
    }


def slow_fates(
    records: list[Record], cuts: dict[int, ClassThresholds], *, deduplicate: bool
) -> dict[int, Fate]:
    """The same, an image and a record at a time."""
    sound = defaultdict(list)
    for record in records:
        if record.outcome is Outcome.KEPT:
            sound[record.content].append(record)
    found = {}
    for record in records:
        copies = sound[record.content]
        pool = [copy for copy in copies if copy.split == TRAIN]
        outcome, drawable = record.outcome, False
        if outcome is Outcome.KEPT and record.split == TRAIN:
            kept_back = any(
                other.content == record.content and other.outcome is Outcome.USAGE_NOT_SELECTED
                for other in records
            )
            in_evaluation = len(copies) > len(pool) or kept_back
            conflict = len({copy.label for copy in pool}) > 1
            further = record.order > min(copy.order for copy in pool)
            drawable = not in_evaluation and not conflict
            if deduplicate:
                drawable = drawable and not further
                if in_evaluation:
                    outcome = Outcome.COPY_OF_EVALUATION
                elif conflict:
                    outcome = Outcome.CONFLICTING_COPIES
                elif further:
                    outcome = Outcome.FURTHER_COPY
        found[record.order] = slow_place(record, outcome, drawable, cuts.get(record.label))
    return found


def slow_place(
    record: Record, outcome: Outcome, drawable: bool, cut: ClassThresholds | None
) -> Fate:
    if outcome is not Outcome.KEPT:
        return Fate(outcome, drawable, NO_SPLIT, 0)
    if record.split != TRAIN or cut is None:
        return Fate(Outcome.KEPT, drawable, record.split, 1)
    if drawable and record.key < cut.validation_below:
        return Fate(Outcome.KEPT, drawable, VALIDATION, 1)
    if drawable and record.key < cut.test_below:
        return Fate(Outcome.KEPT, drawable, TEST, 1)
    return Fate(
        Outcome.KEPT,
        drawable,
        TRAIN,
        cut.copies_per_image + (drawable and record.key < cut.extra_copy_below),
    )


@st.composite
def record_lists(draw: st.DrawFn, evaluation: bool = True) -> list[Record]:
    """Records of few images, so that most have copies."""
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
def cut_tables(draw: st.DrawFn) -> dict[int, ClassThresholds]:
    """Cuts for some of the classes."""
    key = st.sampled_from([-(2**63), -5, -2, 0, 1, 3, 5, LAST_KEY])
    labels = draw(st.sets(st.integers(0, CLASSES - 1)))
    return {
        label: ClassThresholds(
            *sorted(draw(st.tuples(key, key, key))), copies_per_image=draw(st.integers(1, 4))
        )
        for label in labels
    }


@given(record_lists(), cut_tables(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_record_fares_as_an_image_at_a_time(records, cuts, deduplicate):
    assert fates(records, cuts, deduplicate=deduplicate) == slow_fates(
        records, cuts, deduplicate=deduplicate
    )


@given(record_lists(), cut_tables(), st.booleans(), st.randoms())
@settings(max_examples=100, deadline=None)
def test_neither_order_nor_partition_decides(records, cuts, deduplicate, random):
    whole = fates(records, cuts, deduplicate=deduplicate)
    shuffled = random.sample(records, len(records))
    assert fates(shuffled, cuts, deduplicate=deduplicate) == whole
    # Whole groups of copies, spread over three tasks.
    task = [random.randrange(3) for _ in range(8)]
    parts = [[record for record in shuffled if task[record.content] == k] for k in range(3)]
    apart = [fates(part, cuts, deduplicate=deduplicate) for part in parts]
    assert apart[0] | apart[1] | apart[2] == whole


@given(record_lists(), cut_tables())
@settings(max_examples=100, deadline=None)
def test_with_deduplication_no_image_stands_on_both_sides(records, cuts):
    found = fates(records, cuts, deduplicate=True)
    train = [r.content for r in records if found[r.order].split == TRAIN]
    others = {r.content for r in records if found[r.order].split in (VALIDATION, TEST)}
    assert len(train) == len(set(train))
    assert not set(train) & others


@given(record_lists(evaluation=False), cut_tables())
@settings(max_examples=100, deadline=None)
def test_without_it_none_does_either_where_all_splits_are_drawn(records, cuts):
    found = fates(records, cuts, deduplicate=False)
    sides = defaultdict(set)
    for record in records:
        if record.outcome is Outcome.KEPT:
            sides[record.content].add(found[record.order].split)
    assert all(len(side) == 1 for side in sides.values())


@given(record_lists(), cut_tables(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_books_balance(records, cuts, deduplicate):
    found = fates(records, cuts, deduplicate=deduplicate)
    kept = [fate for fate in found.values() if fate.outcome is Outcome.KEPT]
    causes = Counter(fate.outcome for fate in found.values() if fate.outcome is not Outcome.KEPT)
    assert len(kept) + causes.total() == len(records)
    assert all(fate.split in (TRAIN, VALIDATION, TEST) and fate.copies >= 1 for fate in kept)
    before = Counter(record.outcome for record in records if record.outcome is not Outcome.KEPT)
    dropped = (
        {Outcome.COPY_OF_EVALUATION, Outcome.CONFLICTING_COPIES, Outcome.FURTHER_COPY}
        if deduplicate
        else set()
    )
    assert before <= causes
    assert set(causes - before) <= dropped
    # What the source says is validation or test is never dropped and never moves.
    for record in records:
        if record.outcome is Outcome.KEPT and record.split != TRAIN:
            assert found[record.order] == Fate(Outcome.KEPT, False, record.split, 1)


A, B, C, D = range(1, 5)


def test_the_causes_are_tried_in_their_order():
    records = [
        # A copy of a test image whose copies differ and repeat: the first cause.
        Record(A, 0, TEST, Outcome.KEPT, 0),
        Record(A, 0, TRAIN, Outcome.KEPT, 1),
        Record(A, 1, TRAIN, Outcome.KEPT, 2),
        Record(A, 1, TRAIN, Outcome.KEPT, 3),
        # Different labels, also among repeated ones: the second, for all of them.
        Record(B, 0, TRAIN, Outcome.KEPT, 4),
        Record(B, 0, TRAIN, Outcome.KEPT, 5),
        Record(B, 2, TRAIN, Outcome.KEPT, 6),
        # The same label: all but the first.
        Record(C, 1, TRAIN, Outcome.KEPT, 9),
        Record(C, 1, TRAIN, Outcome.KEPT, 7),
        Record(C, 1, TRAIN, Outcome.KEPT, 8),
        # A copy that is out for another reason takes no part.
        Record(D, 0, TRAIN, Outcome.KEPT, 11),
        Record(D, -1, TRAIN, Outcome.CLASS_NOT_SELECTED, 10),
    ]
    found = fates(records, {}, deduplicate=True)
    assert {order: fate.outcome for order, fate in found.items()} == {
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
    assert [order for order, fate in found.items() if fate.drawable] == [7, 11]


def test_copies_within_test_and_validation_all_stay():
    records = [Record(A, 0, TEST, Outcome.KEPT, 0), Record(A, 1, TEST, Outcome.KEPT, 1)]
    records.append(Record(A, 0, VALIDATION, Outcome.KEPT, 2))
    assert [fate.split for fate in fates(records, {}, deduplicate=True).values()] == [
        *(TEST, TEST),
        VALIDATION,
    ]


def test_no_records_are_no_trouble():
    assert fates([], {0: ClassThresholds(0, 0, 0, 1)}, deduplicate=True) == {}
    assert fates([], {}, deduplicate=False) == {}


@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_candidates_stay_as_they_are(deduplicate):
    records = [Record(A, 0, TRAIN, Outcome.KEPT, 0), Record(A, 0, TRAIN, Outcome.KEPT, 1)]
    candidates, before = columns(records), columns(records)
    outcome, can_be_sampled = mark_duplicates(candidates, deduplicate=deduplicate)
    key = np.array([record.key for record in records], np.int64)
    decided = DeduplicatedRecords(key, candidates.label, candidates.split, outcome, can_be_sampled)
    decided_before = copy.deepcopy(decided)
    assign_splits(decided, {0: ClassThresholds(LAST_KEY, LAST_KEY, LAST_KEY, 2)})
    for arrays, arrays_before in ((candidates, before), (decided, decided_before)):
        for name, column in vars(arrays_before).items():
            np.testing.assert_array_equal(getattr(arrays, name), column)


def test_drawn_splits_are_exact_to_one_image_per_class():
    rng = np.random.default_rng(5)
    sizes, records = {0: 137, 1: 11, 2: 400}, []
    for label, size in sizes.items():
        for _ in range(size):
            records.append((len(records), label))
    key = np.array([compute_sampling_key(number.to_bytes(16, "big"), 3) for number, _ in records])
    label = np.array([label for _, label in records], np.int32)
    cuts, expected = {}, {}
    for name, size in sizes.items():
        validation, test = round_share(0.15, size), round_share(0.1, size)
        extra = round_share(0.5, size - validation - test)
        ranks = (validation, validation + test, validation + test + extra)
        keys = sorted(key[label == name].tolist())
        buckets = Counter(k >> 52 for k in keys)
        inside = [{find_bucket_of_rank(buckets, rank)[0]} for rank in ranks]
        cuts[name] = ClassThresholds(
            *(
                find_key_at_rank(
                    buckets, {b: [k for k in keys if k >> 52 == b] for b in bucket}, rank
                )
                for bucket, rank in zip(inside, ranks, strict=True)
            ),
            copies_per_image=2,
        )
        expected[name] = (size - validation - test, validation, test, extra)
    order = rng.permutation(len(records))
    candidates = RecordColumns(
        content=np.stack([order, order], axis=1).astype(np.uint64),
        label=label[order],
        split=np.full(len(records), TRAIN, np.int8),
        outcome=np.full(len(records), Outcome.KEPT, np.int8),
        order=order,
    )
    outcome, can_be_sampled = mark_duplicates(candidates, deduplicate=True)
    decided = DeduplicatedRecords(
        key[order], candidates.label, candidates.split, outcome, can_be_sampled
    )
    split, copies = assign_splits(decided, cuts)
    for name, (train, validation, test, extra) in expected.items():
        here = candidates.label == name
        assert np.bincount(split[here], minlength=3).tolist() == [train, validation, test]
        assert Counter(copies[here & (split == TRAIN)].tolist()) == {3: extra, 2: train - extra}
        assert set(copies[here & (split != TRAIN)].tolist()) == {1}
