"""From what a source holds to labelled images: one judgement for CSV rows and image files alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fer_pipeline.data.emotions import LabelEncoder
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.data.votes import Votes

EXCERPT = 80
"""How many characters of a bad row the quarantine keeps."""


@dataclass(frozen=True)
class RecordError:
    """Why a row cannot be read.

    Attributes:
        reason: The kind of fault.
        detail: What was got and what was expected.
    """

    reason: QuarantineReason
    detail: str


class RawRecord(NamedTuple):
    """What one record of a source says, before anything is made of it.

    Attributes:
        emotion: The text of its label; None where the source has none.
        usage: The text of its usage; None where the source has none.
        text: The record itself, or its path; the quarantine shows an excerpt of it.
        image: Its grey values, uint8 of shape (height, width); None where it has a fault.
        fault: Why it has no image.
    """

    emotion: str | None
    usage: str | None
    text: bytes
    image: npt.NDArray[np.uint8] | None
    fault: RecordError | None = None


@dataclass(frozen=True)
class LabelDecision:
    """What becomes of a record by its label and usage alone.

    Attributes:
        label: The class index, where it has one.
        split: The split that its usage means; training where the splits are drawn.
        code: The label's text as a number, where it is one.
        fault: Why it goes to the quarantine.
        cause: Why it is dropped.
    """

    label: int | None = None
    split: Split | None = None
    code: int | None = None
    fault: RecordError | None = None
    cause: DropReason | None = None


class LabelResolver:
    """Judges records by their label and usage."""

    def __init__(
        self, labels: LabelEncoder, usage: Mapping[str, Split | None] | None, labelled: bool = True
    ) -> None:
        """Takes the rules.

        Args:
            labels: What label texts mean.
            usage: The split of each usage text, or None for rows that are left out; None in place
                of the mapping where usage decides nothing.
            labelled: Whether a record must have a label at all.
        """
        self._labels = labels
        self._usage = None if usage is None else {k.strip().lower(): v for k, v in usage.items()}
        self._labelled = labelled
        # Millions of rows hold a few dozen pairs of label and usage.
        self._known: dict[tuple[str | None, str | None], LabelDecision] = {}

    def __call__(self, emotion: str | None, usage: str | None) -> LabelDecision:
        """The verdict on a label's text and a usage's."""
        pair = (emotion, usage)
        if pair not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[pair] = self._judge(emotion, usage)
        return self._known[pair]

    def _judge(self, emotion: str | None, usage: str | None) -> LabelDecision:
        if not self._labelled:
            return LabelDecision()
        text = (emotion or "").strip()
        if not text:
            return LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no emotion"))
        name = self._labels.emotion(text)
        if name is None:
            return LabelDecision(
                fault=RecordError(QuarantineReason.EMOTION, f"emotion {text[:EXCERPT]!r}")
            )
        split: Split | None = Split.TRAIN
        if self._usage is not None:
            use = (usage or "").strip()
            if not use:
                return LabelDecision(fault=RecordError(QuarantineReason.EMPTY, "no usage"))
            if use.lower() not in self._usage:
                return LabelDecision(
                    fault=RecordError(QuarantineReason.USAGE, f"usage {use[:EXCERPT]!r}")
                )
            split = self._usage[use.lower()]
        label = self._labels.index(name)
        cause = DropReason.CLASS if label is None else DropReason.USAGE if split is None else None
        code = int(text) if text.isdecimal() and len(text) < 6 else None
        return LabelDecision(label, split, code, cause=cause)


def apply_votes(
    records: Sequence[RawRecord],
    verdicts: Sequence[LabelDecision],
    votes: Votes,
    first: int,
    source: str,
) -> list[LabelDecision]:
    """What becomes of records whose labels are voted on.

    What cannot be read stays so, and so does a usage that is left out. Whether the source's own
    label is among the classes matters no longer.

    Args:
        records: Records that follow each other in their file.
        verdicts: What the judge says of them.
        votes: For all records of the file.
        first: The number of the first of the records in the file.
        source: The file, for messages.

    Raises:
        InputError: The votes are not those of these images.
    """
    given = np.array([-1 if v.label is None else v.label for v in verdicts], np.int32)
    labels, causes = votes.decide(np.arange(first, first + len(records)), given)
    made = []
    for row, (raw, verdict) in enumerate(zip(records, verdicts, strict=True)):
        if verdict.fault is None:
            votes.require_usage(first + row, raw.usage, source)
            label = None if causes[row] else int(labels[row])
            cause = DropReason.USAGE if verdict.split is None else causes[row]
            verdict = replace(verdict, label=label, cause=cause)
        made.append(verdict)
    return made


def excerpt(line: bytes) -> str:
    """The beginning of a line, and its end where it is long, as printable text."""
    if len(line) > EXCERPT:
        line = line[: EXCERPT - 25] + b" ... " + line[-20:]
    return "".join(c if c.isprintable() else "?" for c in line.decode("utf-8", "replace"))
