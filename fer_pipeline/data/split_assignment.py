"""Which images are kept, in which split and how often: plain functions on plain arrays.

They see all copies of an image together, with as many other images as there may be: what they say
of an image depends on its copies and on the cuts of its class, never on the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split

SPLITS = tuple(Split)
"""A split's code is its position here."""

OUTCOMES: tuple[QuarantineReason | DropReason, ...] = (*QuarantineReason, *DropReason)
"""The code of why a record is not kept is its position here; a record that is kept has -1."""

KEPT = -1
_TRAIN = SPLITS.index(Split.TRAIN)


@dataclass(frozen=True)
class RecordColumns:
    """Records, as arrays of one length n.

    Attributes:
        content: uint64 of shape (n, 2), equal for two records exactly if their images are.
        key: int64, see `splits.sampling_key`.
        label: int32, the class; -1 where there is none.
        split: int8, the code of the split that the source says; -1 where it says none.
        outcome: int8, the code of why the record is not kept, or `KEPT`.
        order: int64, distinct; the record of least order is the first.
    """

    content: npt.NDArray[np.uint64]
    key: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    order: npt.NDArray[np.int64]


def mark_duplicates(
    candidates: RecordColumns, *, deduplicate: bool
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Decides about copies.

    Args:
        candidates: Records; all copies of an image are among them.
        deduplicate: Whether to drop from training, in this order: copies of test and validation
            images (and of those whose usage is left out), rows whose copies carry different
            labels, further copies with the same label.

    Returns:
        The outcomes, int8, now also naming copies that are dropped; and which records may be drawn
        from training into validation or test, bool.
    """
    sound = candidates.outcome == KEPT
    pool = sound & (candidates.split == _TRAIN)
    # Rows whose usage is left out are kept back for something: training on copies would cheat.
    kept_back = candidates.outcome == OUTCOMES.index(DropReason.USAGE)
    _, group = np.unique(candidates.content, axis=0, return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    in_evaluation = np.bincount(group[(sound & ~pool) | kept_back], minlength=groups)[group] > 0
    lowest = np.full(groups, np.iinfo(np.int32).max, np.int32)
    highest = np.full(groups, -1, np.int32)
    first = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(lowest, group[pool], candidates.label[pool])
    np.maximum.at(highest, group[pool], candidates.label[pool])
    np.minimum.at(first, group[pool], candidates.order[pool])
    differ = (lowest < highest)[group]
    drawable = pool & ~in_evaluation & ~differ
    if not deduplicate:
        # Copies with different labels have no class to be drawn for, and copies of evaluation
        # images have a side already: both stay in training.
        return candidates.outcome, drawable
    further = first[group] != candidates.order
    outcome = candidates.outcome.copy()
    # The last one that is set wins, so they are set in the reverse of their order.
    for cause, here in (
        (DropReason.COPY, further),
        (DropReason.CONFLICT, differ),
        (DropReason.COPY_OF_EVALUATION, in_evaluation),
    ):
        outcome[pool & here] = OUTCOMES.index(cause)
    return outcome, drawable & ~further


@dataclass(frozen=True)
class ClassThresholds:
    """Where a class is cut, in the order of its keys.

    Attributes:
        validation: Drawable records with a key below this are validation.
        test: Those from there to below this are test.
        extra: Those from there to below this are training with one more copy than the others.
        copies: How many times every training image of the class is written.
    """

    validation: int
    test: int
    extra: int
    copies: int


def assign_splits(
    candidates: RecordColumns,
    outcome: npt.NDArray[np.int8],
    drawable: npt.NDArray[np.bool_],
    cuts: Mapping[int, ClassThresholds],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Draws validation and test from training, and says how often a record is written.

    Args:
        candidates: Records.
        outcome: What `settle` says of them.
        drawable: Likewise.
        cuts: By class.

    Returns:
        The codes of the final splits, int8, and the number of copies, int64; -1 and 0 where a
        record is not kept.
    """
    kept = outcome == KEPT
    split = np.where(kept, candidates.split, np.int8(-1))
    copies = kept.astype(np.int64)
    for label, cut in cuts.items():
        here = kept & (candidates.split == _TRAIN) & (candidates.label == label)
        drawn = here & drawable
        split[drawn & (candidates.key < cut.test)] = SPLITS.index(Split.TEST)
        split[drawn & (candidates.key < cut.validation)] = SPLITS.index(Split.VALIDATION)
        train = here & (split == _TRAIN)
        copies[train] = cut.copies + (drawable & (candidates.key < cut.extra))[train]
    return split, copies
