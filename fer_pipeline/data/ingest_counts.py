"""Counts of a preprocessing run: records read, kept, dropped and quarantined."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.image_notes import count_notes
from fer_pipeline.data.manifest import SourceFile
from fer_pipeline.data.outcomes import DropReason, Outcome, QuarantineReason, Split
from fer_pipeline.errors import DatasetError, TooManyBadRowsError

log = logging.getLogger(__name__)

_LAST_CODE_OF_FIVE = 4  # largest label code of a source with five emotions

_TOLERANCE = 1e-12
"""Tolerance of a fraction: 29 of 100 is a little more than 0.29 in floating point."""


@dataclass
class IngestCounts:
    """Numbers of records that were read, by outcome.

    Attributes:
        read: Number of all records.
        dropped: Numbers of readable records that are left out, by reason.
        quarantined: Numbers of records that cannot be read, by reason.
        train_by_class: Numbers of training records by class index, before validation and test are
            sampled.
        heldout_by_split: Numbers of records that the source itself assigns to validation or test.
        offsets: For each block (part of a file that one Spark task reads), the number of records
            in the earlier blocks of the file.
        sources: Counts of each CSV file, or of each folder of images.
        max_label_code: Largest numeric label code of each source; -1 if it has no numeric labels.
        file_problems: Why a CSV file cannot be read, or not to its end, by its name.
        notes: Numbers of kept images by note, see `image_notes`.
    """

    read: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    quarantined: Counter[QuarantineReason] = field(default_factory=Counter)
    train_by_class: Counter[int] = field(default_factory=Counter)
    heldout_by_split: Counter[Split] = field(default_factory=Counter)
    offsets: BlockOffsets = field(default_factory=BlockOffsets)
    sources: list[SourceFile] = field(default_factory=list)
    max_label_code: dict[str, int] = field(default_factory=dict)
    file_problems: dict[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_tallies(
        cls, tallies: Iterable[Mapping[str, Any]], *, by_folder: bool = False
    ) -> IngestCounts:
        """Add up the counts of groups of records.

        A group consists of the records with equal source, block, outcome, split, label and
        detail.

        Args:
            tallies: One mapping for each group, with these keys:

                * `source`: CSV file or folder of images.
                * `block`: Start, in bytes, of the part of the file that one Spark task reads.
                * `outcome`, `split`, `label`: Codes of the outcome, the split and the class.
                * `detail`: Note on kept images, see `image_notes`; why the records of a CSV file
                  are missing; None for other records.
                * `n`: Number of records.
                * `code`: Largest numeric label in the source's own coding; -1 if there is none.
                * `low`, `high`: Sums of the lower and upper 32 bits of the records' hashes.
            by_folder: Whether the sources are folders of images. All folders then share one largest
                label code, because each folder has a single label.
        """
        counts = cls()
        tallies_by_source: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for tally in tallies:
            tallies_by_source[tally["source"]].append(tally)
            counts._add_tally(tally)
        for name, source_tallies in sorted(tallies_by_source.items()):
            label_source = "the folders of images" if by_folder else name
            max_code = counts.max_label_code.get(label_source, -1)
            max_code = max(max_code, *(tally["code"] for tally in source_tallies))
            counts.max_label_code[label_source] = max_code
            counts.sources.append(_build_source_file(name, source_tallies))
            details = [tally["detail"] for tally in source_tallies if _is_quarantined(tally)]
            if problem := min(filter(None, details), default=None):
                counts.file_problems[name] = problem
        counts.notes = count_notes(
            (tally["detail"], tally["n"])
            for source_tallies in tallies_by_source.values()
            for tally in source_tallies
            if not _is_quarantined(tally)
        )
        counts.offsets = BlockOffsets.from_counts(
            (name, tally["block"], tally["n"])
            for name, source_tallies in tallies_by_source.items()
            for tally in source_tallies
        )
        return counts

    def _add_tally(self, tally: Mapping[str, Any]) -> None:
        """Count the records of a group, in total and by outcome.

        Kept training records are counted by class, other kept records by split.

        Args:
            tally: Number `n` of the group's records, with their `outcome`, `split` and `label`.
        """
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

    def require_usable_records(self, max_quarantined_fraction: float) -> None:
        """Check that not too many records are quarantined and that training records are left.

        Args:
            max_quarantined_fraction: Largest acceptable fraction of quarantined records (those that
                cannot be read), in [0, 1].

        Raises:
            TooManyBadRowsError: The fraction of quarantined records, or of CSV files that cannot be
                read to their end, is larger than acceptable.
            DatasetError: No training records are left.
        """
        self._require_readable_files(max_quarantined_fraction)
        bad_count = sum(self.quarantined.values())
        if bad_count / self.read - max_quarantined_fraction > _TOLERANCE:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.quarantined.most_common())
            worst_source = max(self.sources, key=lambda source: source.quarantined)
            raise TooManyBadRowsError(
                f"{bad_count} of {self.read} records are bad, more than"
                f" input.max_quarantined_fraction {max_quarantined_fraction:g} allows ({reasons});"
                f" most of them in {worst_source.path}; nothing was written"
            )
        if not self.train_by_class:
            dropped = ", ".join(f"{reason}: {n}" for reason, n in self.dropped.items()) or "none"
            raise DatasetError(
                f"no training rows are left of {self.read} records (dropped: {dropped}; validation"
                f" and test: {sum(self.heldout_by_split.values())}); check classes and"
                " split.usage_to_split"
            )

    def _require_readable_files(self, max_quarantined_fraction: float) -> None:
        """Check that not too many CSV files cannot be read to their end.

        How many records such a file has lost is unknown, so their number cannot be compared.
        """
        bad_count, file_count = len(self.file_problems), len(self.sources)
        if not bad_count or bad_count / file_count - max_quarantined_fraction <= _TOLERANCE:
            return
        name, problem = next(iter(self.file_problems.items()))
        raise TooManyBadRowsError(
            f"{name}: {problem} ({bad_count} of {file_count} CSV files cannot be read to their end,"
            f" more than input.max_quarantined_fraction {max_quarantined_fraction:g} allows);"
            " nothing was written; repair the file or leave it out"
        )

    def warn_about_low_codes(self, emotion_of_code: Mapping[str, str]) -> None:
        """Log a warning about each source whose largest label code is between 0 and 4.

        FER2013's codes go up to 6. A source without the codes 5 and 6 may number five emotions in
        an order of its own, as some published files do. Nothing is logged if the configured codes
        differ from FER2013's, because the user has then stated their meaning.

        Args:
            emotion_of_code: Configured emotion of each label code.
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


def _is_quarantined(tally: Mapping[str, Any]) -> bool:
    """Return whether the records of a group are quarantined."""
    return Outcome(tally["outcome"]).is_quarantined


def _build_source_file(name: str, tallies: Sequence[Mapping[str, Any]]) -> SourceFile:
    """Describe one source for `manifest.json` by adding up the counts of its groups of records.

    Args:
        name: Path or URL of the source, a CSV file or a folder of images.
        tallies: One mapping for each group, with these keys: `n`, the number of records;
            `outcome`, their outcome; `low` and `high`, the sums of the lower and upper 32 bits of
            their hashes.
    """
    return SourceFile(
        path=name,
        records=sum(tally["n"] for tally in tallies),
        quarantined=sum(tally["n"] for tally in tallies if _is_quarantined(tally)),
        fingerprint=format_checksum(sum(t["low"] + (t["high"] << 32) for t in tallies)),
    )


def format_checksum(total: int) -> str:
    """Format a sum of 64-bit hashes, modulo 2**64, as 16 hexadecimal digits."""
    return f"{total % 2**64:016x}"
