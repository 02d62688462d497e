"""Deduplication: which copies of an image are left out of training. Plain functions on arrays.

The functions see all copies of an image together, with any number of other images. What they decide
about an image depends on its copies only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import Outcome, Split


@dataclass(frozen=True)
class RecordColumns:
    """Records before the decision about copies, as arrays of one length n.

    Attributes:
        content: Image hash, uint64 of shape (n, 2), equal for two records exactly if their images
            are.
        label: Class, int32; -1 without one.
        split: Split code that the source names, int8; `NO_SPLIT` without one.
        outcome: Code of why the record is not kept, or `Outcome.KEPT`, int8.
        order: Distinct numbers, int64; the record of lowest order counts as the first copy.
    """

    content: npt.NDArray[np.uint64]
    label: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    order: npt.NDArray[np.int64]


def mark_duplicates(
    records: RecordColumns, *, deduplicate: bool
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Decide which copies are dropped, and which records validation and test may be sampled from.

    Args:
        records: Records, all copies of an image among them.
        deduplicate: Whether to drop from training, in this order: copies of test and validation
            images (and of those whose usage is left out), records whose copies carry different
            labels, further copies with the same label.

    Returns:
        The outcomes, int8 of shape (n,), now with dropped copies; and whether a record may be moved
        from training into validation or test, bool of shape (n,).
    """
    is_kept = records.outcome == Outcome.KEPT
    in_training = is_kept & (records.split == Split.TRAIN.code)
    # Records whose usage is left out are held back on purpose: training on copies would be a leak.
    held_back = records.outcome == Outcome.USAGE_NOT_SELECTED
    _, group = np.unique(records.content, axis=0, return_inverse=True)
    group_count = int(group.max(initial=-1)) + 1
    held_out = (is_kept & ~in_training) | held_back
    in_evaluation = np.bincount(group[held_out], minlength=group_count)[group] > 0
    lowest_label = np.full(group_count, np.iinfo(np.int32).max, np.int32)
    highest_label = np.full(group_count, -1, np.int32)
    first_order = np.full(group_count, np.iinfo(np.int64).max)
    np.minimum.at(lowest_label, group[in_training], records.label[in_training])
    np.maximum.at(highest_label, group[in_training], records.label[in_training])
    np.minimum.at(first_order, group[in_training], records.order[in_training])
    labels_differ = (lowest_label < highest_label)[group]
    can_be_sampled = in_training & ~in_evaluation & ~labels_differ
    if not deduplicate:
        # Copies with different labels have no class to be sampled for, and copies of evaluation
        # images are on one side already: both stay in training.
        return records.outcome, can_be_sampled
    is_further_copy = first_order[group] != records.order
    outcome = records.outcome.copy()
    # The last one that is set wins, so they are set in the reverse of their order.
    for drop, applies in (
        (Outcome.FURTHER_COPY, is_further_copy),
        (Outcome.CONFLICTING_COPIES, labels_differ),
        (Outcome.COPY_OF_EVALUATION, in_evaluation),
    ):
        outcome[in_training & applies] = drop
    return outcome, can_be_sampled & ~is_further_copy
