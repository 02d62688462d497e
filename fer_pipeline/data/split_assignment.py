"""Assignment of records to splits, and the number of times that each record is written.

The split of an image depends on its sampling key and on the thresholds of its class, not on other
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.outcomes import NO_SPLIT, Outcome, Split


@dataclass(frozen=True)
class DeduplicatedRecords:
    """The columns of n records that the assignment to splits needs, after deduplication.

    Attributes:
        key: Sampling key of each record, int64 of shape (n,): a pseudo-random number that is
            computed from the image's content and the seed.
        label: Class index of each record, int32 of shape (n,); -1 if the record has no class.
        split: Code of the split given by the source, int8 of shape (n,); `NO_SPLIT` if none.
        outcome: `Outcome` of each record, int8 of shape (n,), including dropped copies.
        can_be_sampled: Whether each record may be moved from training to validation or test, bool
            of shape (n,).
    """

    key: npt.NDArray[np.int64]
    label: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    outcome: npt.NDArray[np.int8]
    can_be_sampled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassThresholds:
    """The sampling keys that separate the splits of one class, and its oversampling.

    A sampling key is a pseudo-random number that is computed from an image's content and the seed.
    The thresholds apply only to the records that may be moved from training to validation or test.
    They are in ascending order.

    Attributes:
        validation_below: Records with a lower key belong to validation.
        test_below: Records with a key in [validation_below, test_below) belong to test. Records
            with a higher key belong to training.
        extra_copy_below: Training records with a key in [test_below, extra_copy_below) are written
            one more time than other training records.
        copies_per_image: Number of times that the other training records are written.
    """

    validation_below: int
    test_below: int
    extra_copy_below: int
    copies_per_image: int


def assign_splits(
    records: DeduplicatedRecords, thresholds: Mapping[int, ClassThresholds]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Determine the final split of each record and the number of times that it is written.

    Training records for which `can_be_sampled` is true are moved to validation or test if their
    sampling key, a pseudo-random number computed from the image's content and the seed, is below a
    threshold. All other kept records stay in the split given by the source. Training records may
    be written several times (oversampling).

    Args:
        records: The records after deduplication.
        thresholds: For each class index, the keys that separate validation, test and training, and
            the number of times that training records are written.

    Returns:
        split: Code of the final split of each record, int8 of shape (n,); `NO_SPLIT` if the record
            is not kept.
        copies: Number of times that each record is written, int64 of shape (n,); 0 if it is not
            kept.
    """
    is_kept = records.outcome == Outcome.KEPT
    split = np.where(is_kept, records.split, np.int8(NO_SPLIT))
    copies = is_kept.astype(np.int64)
    for label, class_thresholds in thresholds.items():
        in_pool = is_kept & (records.split == Split.TRAIN.code) & (records.label == label)
        can_be_sampled = in_pool & records.can_be_sampled
        split[can_be_sampled & (records.key < class_thresholds.test_below)] = Split.TEST.code
        split[can_be_sampled & (records.key < class_thresholds.validation_below)] = (
            Split.VALIDATION.code
        )
        in_training = in_pool & (split == Split.TRAIN.code)
        has_extra = records.can_be_sampled & (records.key < class_thresholds.extra_copy_below)
        copies[in_training] = class_thresholds.copies_per_image + has_extra[in_training]
    return split, copies
