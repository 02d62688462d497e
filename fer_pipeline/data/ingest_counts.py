"""Counts of a preprocessing run: records read, kept, dropped and quarantined."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.manifest import SourceFile
from fer_pipeline.data.outcomes import DropReason, Outcome, QuarantineReason, Split
from fer_pipeline.errors import DatasetError, TooManyBadRowsError

log = logging.getLogger(__name__)

_LAST_CODE_OF_FIVE = 4  # the largest code of a source that numbers five emotions

_TOLERANCE = 1e-12
"""Tolerance of a fraction: 29 of 100 is a little more than 0.29 in floating point."""


@dataclass
class IngestCounts:
    """The records that were read, by what becomes of them.

    Attributes:
        read: Number of records.
        dropped: Readable records that are left out, by reason.
        quarantined: Records that cannot be read, by reason.
        train_by_class: Training records by class, before validation and test are sampled.
        heldout_by_split: Validation and test records that the source names as such.
        offsets: Offsets of the blocks that tasks read.
        sources: Counts of each file, or of each folder of images.
        max_label_code: Largest code among the labels of each source, -1 if there is none.
    """

    read: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    quarantined: Counter[QuarantineReason] = field(default_factory=Counter)
    train_by_class: Counter[int] = field(default_factory=Counter)
    heldout_by_split: Counter[Split] = field(default_factory=Counter)
    offsets: BlockOffsets = field(default_factory=BlockOffsets)
    sources: list[SourceFile] = field(default_factory=list)
    max_label_code: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_tallies(
        cls, tallies: Iterable[Mapping[str, Any]], *, by_folder: bool = False
    ) -> IngestCounts:
        """Add up the counts of groups of records.

        Args:
            tallies: Groups of records as `spark.record_statistics.count_records` returns them.
            by_folder: Whether a source is a folder of images, whose label is one of many.
        """
        counts = cls()
        tallies_by_source: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for tally in tallies:
            tallies_by_source[tally["source"]].append(tally)
            counts._add(tally)
        for name, of_source in sorted(tallies_by_source.items()):
            label_source = "the folders of images" if by_folder else name
            largest = counts.max_label_code.get(label_source, -1)
            largest = max(largest, *(tally["code"] for tally in of_source))
            counts.max_label_code[label_source] = largest
            counts.sources.append(_source_file(name, of_source))
        counts.offsets = BlockOffsets.from_counts(
            (name, tally["block"], tally["n"])
            for name, of_source in tallies_by_source.items()
            for tally in of_source
        )
        return counts

    def _add(self, tally: Mapping[str, Any]) -> None:
        self.read += tally["n"]
        match Outcome(tally["outcome"]).reason:
            case QuarantineReason() as reason:
                self.quarantined[reason] += tally["n"]
            case DropReason() as reason:
                self.dropped[reason] += tally["n"]
            case None if tally["split"] == Split.TRAIN.code:
                self.train_by_class[tally["label"]] += tally["n"]
            case None:
                self.heldout_by_split[list(Split)[tally["split"]]] += tally["n"]

    def require_usable(self, max_quarantined_fraction: float) -> None:
        """Stop a run that would make no good dataset, before anything is written.

        Args:
            max_quarantined_fraction: Largest share of quarantined records that is accepted.

        Raises:
            TooManyBadRowsError: More records are quarantined.
            DatasetError: There is no record to train on.
        """
        bad = sum(self.quarantined.values())
        if bad / self.read - max_quarantined_fraction > _TOLERANCE:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.quarantined.most_common())
            worst = max(self.sources, key=lambda source: source.quarantined)
            raise TooManyBadRowsError(
                f"{bad} of {self.read} records are bad, more than input.max_quarantined_fraction"
                f" {max_quarantined_fraction:g} allows ({reasons}); most of"
                f" them in {worst.path}; nothing was written"
            )
        if not self.train_by_class:
            dropped = ", ".join(f"{reason}: {n}" for reason, n in self.dropped.items()) or "none"
            raise DatasetError(
                f"no training rows are left of {self.read} records (dropped: {dropped}; validation"
                f" and test: {sum(self.heldout_by_split.values())}); check classes and"
                " split.usage_to_split"
            )

    def warn_about_low_codes(self, emotion_of_code: Mapping[str, str]) -> None:
        """Warn about sources that seem to number five emotions in an order of their own.

        Reference system E has such a file.

        Args:
            emotion_of_code: Emotion of each label code. Any but FER2013's own was set on purpose.
        """
        if emotion_of_code != {str(code): name for code, name in enumerate(FER2013)}:
            return
        for source, code in self.max_label_code.items():
            if 0 <= code <= _LAST_CODE_OF_FIVE:
                log.warning(
                    "%s: its codes never exceed %d, FER2013's go up to 6; if they mean other"
                    " emotions than angry, disgust, fear, happy, sad, say which with"
                    " input.emotions",
                    source,
                    code,
                )


def _source_file(name: str, tallies: Sequence[Mapping[str, Any]]) -> SourceFile:
    return SourceFile(
        path=name,
        records=sum(tally["n"] for tally in tallies),
        quarantined=sum(t["n"] for t in tallies if Outcome(t["outcome"]).is_quarantined),
        fingerprint=format_checksum(sum(t["low"] + (t["high"] << 32) for t in tallies)),
    )


def format_checksum(total: int) -> str:
    """Return a sum of 64-bit hashes as 16 hexadecimal digits; their order does not matter."""
    return f"{total % 2**64:016x}"
