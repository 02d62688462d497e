"""Computation of the thresholds between the splits of each class from the configured fractions."""

from __future__ import annotations

from collections.abc import Mapping

from fer_pipeline.config import Config
from fer_pipeline.data.oversampling import compute_oversampling_factors
from fer_pipeline.data.split_assignment import ClassThresholds
from fer_pipeline.data.split_keys import round_share
from fer_pipeline.spark.record_statistics import find_keys_at_ranks
from fer_pipeline.spark.record_store import RecordStore


def find_class_thresholds(
    store: RecordStore, config: Config, train_by_class: Mapping[int, int]
) -> dict[int, ClassThresholds]:
    """Find the thresholds that divide the training records of each class into the three splits.

    The thresholds are sampling keys: pseudo-random numbers that are computed from the content of an
    image and the seed. The records of a class with the lowest keys become validation, the next
    become test, and the remaining records stay in training. If the oversampling factor of a class
    is not a whole number, a third threshold selects the training records that are written one more
    time than the others.

    Args:
        store: All records, with marked duplicates.
        config: Configuration with the fractions of validation and test, and the oversampling.
        train_by_class: Number of training records by class index, before validation and test are
            sampled.

    Returns:
        The thresholds and the oversampling of each class, by class index.
    """
    validation = {
        label: round_share(config.split.validation or 0, count)
        for label, count in train_by_class.items()
    }
    test = {
        label: round_share(config.split.test or 0, count) for label, count in train_by_class.items()
    }
    train = {
        label: count - validation[label] - test[label] for label, count in train_by_class.items()
    }
    names = config.class_names
    factors = compute_oversampling_factors(
        {names[label]: count for label, count in train.items()},
        balance=config.sampling.balance,
        oversample=config.sampling.oversample,
    )
    ranks = {}
    for label, count in train.items():
        extra = round_share(factors[names[label]] % 1, count)
        test_rank = validation[label] + test[label]
        ranks[label] = (validation[label], test_rank, test_rank + extra)
    keys = find_keys_at_ranks(store, ranks)
    return {
        label: ClassThresholds(
            validation_below=keys[label, validation_rank],
            test_below=keys[label, test_rank],
            extra_copy_below=keys[label, extra_rank],
            copies_per_image=int(factors[names[label]]),
        )
        for label, (validation_rank, test_rank, extra_rank) in ranks.items()
    }
