"""Deduplication: the choice of the duplicates that are left out of training.

A copy is a record that has the same image as another record. All copies of an image must be passed
together. The decision about an image depends only on its copies, not on other images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import Outcome, Split


@dataclass(frozen=True)
class RecordColumns:
    """The columns of n records that deduplication needs.

    Attributes:
        content: Hash of each image, uint64 of shape (n, 2). Two records have equal hashes exactly
            if their images are equal.
        label: Class index of each record, int32 of shape (n,); -1 if the record has no class.
        split: Code of the split given by the source, int8 of shape (n,); `NO_SPLIT` if none.
        outcome: `Outcome` of each record before deduplication (kept, or the reason to drop or
            quarantine it), int8 of shape (n,).
        order: Distinct numbers, int64 of shape (n,). Of several copies, the record with the lowest
            number counts as the first.
    """

    content: npt.NDArray[np.uint64]
    label: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    order: npt.NDArray[np.int64]


def mark_duplicates(
    records: RecordColumns, *, deduplicate: bool
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Mark the training records to drop, and those that may be moved to validation or test.

    Records with equal images are copies of each other. An image is excluded if the configuration
    leaves out its usage (FER2013's name of a part, such as PublicTest).

    A training record is dropped for the first of these reasons that applies:

    1. A copy of it is excluded, or belongs to validation or test.
    2. It and its copies in training have different labels.
    3. It is not the first of several copies with the same label.

    Args:
        records: The records. If an image has several copies, all of them must be included.
        deduplicate: Whether to drop records. If false, the outcomes are returned unchanged.

    Returns:
        outcome: `Outcome` of each record, int8 of shape (n,): kept, or the reason to drop or
            quarantine it.
        can_be_sampled: Whether each record may be moved from training to validation or test, bool
            of shape (n,). True for the training records to which no reason applies; reason 3 does
            not matter if `deduplicate` is false.
    """
    is_kept = records.outcome == Outcome.KEPT
    in_training = is_kept & (records.split == Split.TRAIN.code)
    # Records with an excluded usage are withheld on purpose: training on their copies would be a
    # leak.
    is_excluded = records.outcome == Outcome.USAGE_NOT_SELECTED
    _, group = np.unique(records.content, axis=0, return_inverse=True)
    group_count = int(group.max(initial=-1)) + 1
    is_held_out = (is_kept & ~in_training) | is_excluded
    has_held_out_copy = np.bincount(group[is_held_out], minlength=group_count)[group] > 0
    lowest_label = np.full(group_count, np.iinfo(np.int32).max, np.int32)
    highest_label = np.full(group_count, -1, np.int32)
    first_order = np.full(group_count, np.iinfo(np.int64).max)
    np.minimum.at(lowest_label, group[in_training], records.label[in_training])
    np.maximum.at(highest_label, group[in_training], records.label[in_training])
    np.minimum.at(first_order, group[in_training], records.order[in_training])
    labels_differ = (lowest_label < highest_label)[group]
    can_be_sampled = in_training & ~has_held_out_copy & ~labels_differ
    if not deduplicate:
        # Copies with different labels cannot be sampled by class, and moving copies of held-out
        # images would place them in two splits. Both stay in training.
        return records.outcome, can_be_sampled
    is_further_copy = first_order[group] != records.order
    outcome = records.outcome.copy()
    # If several reasons apply, the last assignment wins. The reasons are therefore assigned in the
    # reverse of their documented order.
    for drop_outcome, applies in (
        (Outcome.FURTHER_COPY, is_further_copy),
        (Outcome.CONFLICTING_COPIES, labels_differ),
        (Outcome.COPY_OF_EVALUATION, has_held_out_copy),
    ):
        outcome[in_training & applies] = drop_outcome
    return outcome, can_be_sampled & ~is_further_copy
