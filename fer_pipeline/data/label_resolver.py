"""The class and the split that a record's label and usage texts, or people's votes, stand for."""

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
"""The label of a record that belongs to no class, and the code of a label that is no number."""

_MAX_CODE_DIGITS = 5


@dataclass(frozen=True)
class ResolvedLabel:
    """The meaning of one pair of a label and a usage.

    Attributes:
        label: Class index; None if the label means no class of the dataset.
        split: Split that the usage means; training if the usage decides nothing.
        code: The label's text as a number, if it is one.
        outcome: `Outcome.KEPT`, or why records with this pair are quarantined or dropped.
        detail: What is wrong with a pair that is quarantined.
    """

    label: int | None = None
    split: Split | None = None
    code: int | None = None
    outcome: Outcome = Outcome.KEPT
    detail: str | None = None


@dataclass(frozen=True)
class ResolvedLabels:
    """The meaning of the labels and usages of n records, in columns.

    Attributes:
        labels: Class of each record, int32 of shape (n,); NO_LABEL without one.
        splits: Split code that its usage means, int8 of shape (n,); NO_SPLIT without one.
        codes: Its label's text as a number, int32 of shape (n,); NO_LABEL if it is none.
        drops: Why it is dropped, int8 of shape (n,); `Outcome.KEPT` if it is not.
        errors: Why it is quarantined.
    """

    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    codes: npt.NDArray[np.int32]
    drops: npt.NDArray[np.int8]
    errors: RecordErrors


class LabelResolver:
    """Resolves label and usage texts."""

    def __init__(
        self, encoder: LabelEncoder, usage_to_split: Mapping[str, Split | None] | None
    ) -> None:
        """Set the rules.

        Args:
            encoder: Meaning of label texts.
            usage_to_split: Split of each usage text, or None for records that are left out; None
                in place of the mapping if usages decide nothing.
        """
        self._encoder = encoder
        self._usage_to_split = (
            None
            if usage_to_split is None
            else {usage.strip().lower(): split for usage, split in usage_to_split.items()}
        )

    def resolve_pair(self, emotion: str | None, usage: str | None) -> ResolvedLabel:
        """Return the meaning of a label and a usage; the label is checked first."""
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
        """Resolve the labels and usages of records.

        Args:
            emotions: Label text of each record.
            usages: Usage text of each record.
        """
        # Millions of records hold a few dozen pairs: each is decided once a batch.
        numbers: dict[tuple[str | None, str | None], int] = {}
        pairs = zip(emotions, usages, strict=True)
        rows = np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], np.intp)
        decisions = [self.resolve_pair(*pair) for pair in numbers]
        outcomes = np.array([decision.outcome for decision in decisions], np.int8)
        quarantined = np.array([decision.outcome.is_quarantined for decision in decisions], bool)
        errors = RecordErrors(len(rows))
        for row in np.flatnonzero(quarantined[rows]).tolist():
            decision = decisions[rows[row]]
            errors.add(row, decision.outcome, decision.detail or "")
        labels = [NO_LABEL if d.label is None else d.label for d in decisions]
        splits = [NO_SPLIT if d.split is None else d.split.code for d in decisions]
        codes = [NO_LABEL if d.code is None else d.code for d in decisions]
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
    """Return the labels that people voted for in place of the source's own.

    A label or usage that cannot be read stays an error, and a usage that is left out stays so.
    Whether the source's own label is among the classes no longer matters.

    Args:
        resolved: Labels and usages as the source names them.
        votes: Votes on all records of the file.
        record_numbers: Number of each record in the file.
        usages: Usage text of each record.
        source: Name of the file, for messages.

    Raises:
        InputError: The votes are on other images.
    """
    readable = resolved.errors.outcomes == Outcome.KEPT
    voted, outcomes = votes.choose_labels(record_numbers, resolved.labels)
    for row in np.flatnonzero(readable).tolist():
        votes.require_matching_usage(int(record_numbers[row]), usages[row], source)
    left_out = resolved.splits == NO_SPLIT
    drops = np.where(left_out, np.int8(Outcome.USAGE_NOT_SELECTED), outcomes)
    return ResolvedLabels(
        labels=np.where(readable, voted, resolved.labels),
        splits=resolved.splits,
        codes=resolved.codes,
        drops=np.where(readable, drops, resolved.drops),
        errors=resolved.errors,
    )
