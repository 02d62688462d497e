"""Assignment of records to train, validation and test, and how often each is written.

The split of an image depends on its key and on the thresholds of its class, never on other images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import NO_SPLIT, Outcome, Split


@dataclass(frozen=True)
class DeduplicatedRecords:
    """Records after the decision about copies, as arrays of one length n.

    Attributes:
        key: Sampling key, int64, see `split_keys.compute_sampling_key`.
        label: Class, int32; -1 without one.
        split: Split code that the source names, int8; `NO_SPLIT` without one.
        outcome: Code of why the record is not kept, or `Outcome.KEPT`, int8.
        can_be_sampled: Whether it may be moved from training into validation or test, bool.
    """

    key: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    can_be_sampled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassThresholds:
    """The thresholds of one class, in the order of its keys.

    Attributes:
        validation_below: Records that can be sampled are validation with a key below this one.
        test_below: They are test with a key from there to below this one.
        extra_copy_below: They are training, with one copy more than the others, with a key from
            there to below this one.
        copies_per_image: Number of times that every training image of the class is written.
    """

    validation_below: int
    test_below: int
    extra_copy_below: int
    copies_per_image: int


def assign_splits(
    records: DeduplicatedRecords, thresholds: Mapping[int, ClassThresholds]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Move records from training into validation and test, and return how often each is written.

    Args:
        records: Records after the decision about copies.
        thresholds: Thresholds of each class.

    Returns:
        The codes of the final splits, int8, and the number of copies, int64, both of shape (n,);
        `NO_SPLIT` and 0 for a record that is not kept.
    """
    is_kept = records.outcome == Outcome.KEPT
    split = np.where(is_kept, records.split, np.int8(NO_SPLIT))
    copies = is_kept.astype(np.int64)
    for label, of_class in thresholds.items():
        in_pool = is_kept & (records.split == Split.TRAIN.code) & (records.label == label)
        can_be_sampled = in_pool & records.can_be_sampled
        split[can_be_sampled & (records.key < of_class.test_below)] = Split.TEST.code
        split[can_be_sampled & (records.key < of_class.validation_below)] = Split.VALIDATION.code
        in_training = in_pool & (split == Split.TRAIN.code)
        has_extra = records.can_be_sampled & (records.key < of_class.extra_copy_below)
        copies[in_training] = of_class.copies_per_image + has_extra[in_training]
    return split, copies
