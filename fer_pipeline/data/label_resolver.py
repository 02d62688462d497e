"""Conversion of a record's label and usage texts, or of votes on its label, to class and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.outcomes import NO_SPLIT, Outcome, Split
from fer_pipeline.data.record_batch import EXCERPT_LENGTH, RecordErrors
from fer_pipeline.data.votes import Votes

NO_LABEL = -1
"""Class index of a record without a class, and code of a label text that is not a number."""

_MAX_CODE_DIGITS = 5


@dataclass(frozen=True)
class ResolvedLabel:
    """Class, split and outcome of the records with one combination of label and usage text.

    The usage is FER2013's name of the part that an image belongs to, such as PublicTest.

    Attributes:
        label: Class index; None if the label is not a class of the dataset, or if the records are
            quarantined.
        split: Split given by the usage; the training split if usages are ignored; None if records
            with this usage are left out, or if the records are quarantined.
        code: Numeric value of the label text; None if the text is not a number.
        outcome: `Outcome.KEPT`, or the reason to quarantine or drop the records.
        detail: Description of the error if the records are quarantined.
    """

    label: int | None = None
    split: Split | None = None
    code: int | None = None
    outcome: Outcome = Outcome.KEPT
    detail: str | None = None


@dataclass(frozen=True)
class ResolvedLabels:
    """Classes, splits and outcomes of n records, in columns.

    Attributes:
        labels: Class index of each record, int32 of shape (n,); NO_LABEL if it has no class.
        splits: Code of the split given by each record's usage, int8 of shape (n,); NO_SPLIT if
            the usage is left out or invalid.
        codes: Numeric value of each label text, int32 of shape (n,); NO_LABEL if the text is not a
            number.
        drops: `Outcome` with which each record is dropped, int8 of shape (n,); `Outcome.KEPT` if
            it is not dropped.
        errors: Errors of the records that are quarantined.
    """

    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    codes: npt.NDArray[np.int32]
    drops: npt.NDArray[np.int8]
    errors: RecordErrors


class LabelResolver:
    """Converts label and usage texts to classes and splits."""

    def __init__(
        self, encoder: LabelEncoder, usage_to_split: Mapping[str, Split | None] | None
    ) -> None:
        """Set the rules that convert labels to classes and usages to splits.

        Args:
            encoder: Converter of label texts to class indices.
            usage_to_split: Split of each usage (value of FER2013's column Usage or name of a
                folder), or None for a usage whose records are left out. If None is passed instead
                of a mapping, usages are ignored and all records belong to the training split.
        """
        self._encoder = encoder
        self._usage_to_split = (
            None
            if usage_to_split is None
            else {usage.strip().lower(): split for usage, split in usage_to_split.items()}
        )

    def resolve_pair(self, emotion: str | None, usage: str | None) -> ResolvedLabel:
        """Convert one label text and one usage text to class and split.

        If both texts are invalid, the outcome reports only the label. If the resolver ignores
        usages, the split is the training split.

        Args:
            emotion: Label text of a record; None if it has none.
            usage: Usage text of a record (value of FER2013's column Usage or name of a folder);
                None if it has none.
        """
        text = (emotion or "").strip()
        if not text:
            return ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no emotion")
        name = self._encoder.find_emotion(text)
        if name is None:
            detail = f"emotion {text[:EXCERPT_LENGTH]!r}"
            return ResolvedLabel(outcome=Outcome.UNKNOWN_EMOTION, detail=detail)
        split: Split | None = Split.TRAIN
        if self._usage_to_split is not None:
            usage_text = (usage or "").strip()
            if not usage_text:
                return ResolvedLabel(outcome=Outcome.EMPTY_FIELD, detail="no usage")
            if usage_text.lower() not in self._usage_to_split:
                detail = f"usage {usage_text[:EXCERPT_LENGTH]!r}"
                return ResolvedLabel(outcome=Outcome.UNKNOWN_USAGE, detail=detail)
            split = self._usage_to_split[usage_text.lower()]
        label = self._encoder.find_class_index(name)
        outcome = Outcome.KEPT
        if label is None:
            outcome = Outcome.CLASS_NOT_SELECTED
        elif split is None:
            outcome = Outcome.USAGE_NOT_SELECTED
        code = int(text) if text.isdecimal() and len(text) <= _MAX_CODE_DIGITS else None
        return ResolvedLabel(label, split, code, outcome)

    def resolve(
        self, emotions: Sequence[str | None], usages: Sequence[str | None]
    ) -> ResolvedLabels:
        """Convert the label and usage texts of n records to classes and splits.

        Args:
            emotions: Label text of each record; None if it has none.
            usages: Usage text of each record (value of FER2013's column Usage or name of a folder);
                None if it has none.
        """
        # Millions of records have a few dozen distinct pairs: each pair is resolved once per batch.
        pair_indices: dict[tuple[str | None, str | None], int] = {}
        text_pairs = zip(emotions, usages, strict=True)
        rows = np.array(
            [pair_indices.setdefault(pair, len(pair_indices)) for pair in text_pairs], np.intp
        )
        resolved_pairs = [self.resolve_pair(*pair) for pair in pair_indices]
        outcomes = np.array([pair.outcome for pair in resolved_pairs], np.int8)
        quarantined = np.array([pair.outcome.is_quarantined for pair in resolved_pairs], bool)
        errors = RecordErrors(len(rows))
        for row in np.flatnonzero(quarantined[rows]).tolist():
            pair = resolved_pairs[rows[row]]
            errors.set_error(row, pair.outcome, pair.detail or "")
        labels = [NO_LABEL if pair.label is None else pair.label for pair in resolved_pairs]
        splits = [NO_SPLIT if pair.split is None else pair.split.code for pair in resolved_pairs]
        codes = [NO_LABEL if pair.code is None else pair.code for pair in resolved_pairs]
        return ResolvedLabels(
            labels=np.array(labels, np.int32)[rows],
            splits=np.array(splits, np.int8)[rows],
            codes=np.array(codes, np.int32)[rows],
            drops=np.where(quarantined, Outcome.KEPT, outcomes).astype(np.int8)[rows],
            errors=errors,
        )


def apply_votes(
    resolved: ResolvedLabels,
    votes: Votes,
    record_numbers: npt.NDArray[np.int64],
    usages: Sequence[str | None],
    source: str,
) -> ResolvedLabels:
    """Replace the label of each record with the class that has the most annotators' votes.

    Records with an invalid label or usage keep their errors. Records whose usage (FER2013's name of
    a part, such as PublicTest) has no split stay dropped. Other records are dropped in three cases:

    * "Not a face" has the most votes.
    * No class has a vote.
    * Several classes have the most votes, and the source's label is not one of these.

    Otherwise the record is kept, even if the source's label is not a class of the dataset.

    Args:
        resolved: Labels, splits and errors of n records of one file, according to the file itself.
        votes: Votes on all records of the file.
        record_numbers: 0-based number of each record in the file, of shape (n,).
        usages: Usage text of each record; None if it has none.
        source: Name of the file, for error messages.

    Returns:
        Labels and dropped records according to the votes; splits, codes and errors as in
        `resolved`.

    Raises:
        InputError: The usage of a record differs from the votes file, so the votes belong to
            different images.
    """
    readable = resolved.errors.outcomes == Outcome.KEPT
    voted_labels, outcomes = votes.choose_labels(record_numbers, resolved.labels)
    for row in np.flatnonzero(readable).tolist():
        votes.require_matching_usage(int(record_numbers[row]), usages[row], source)
    is_excluded = resolved.splits == NO_SPLIT
    drops = np.where(is_excluded, np.int8(Outcome.USAGE_NOT_SELECTED), outcomes)
    return ResolvedLabels(
        labels=np.where(readable, voted_labels, resolved.labels),
        splits=resolved.splits,
        codes=resolved.codes,
        drops=np.where(readable, drops, resolved.drops),
        errors=resolved.errors,
    )
