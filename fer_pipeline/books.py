"""The books of a preprocessing run: what was read, and what became of it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_pipeline.accounting import Cause, Reason, Split
from fer_pipeline.config import Config
from fer_pipeline.emotions import FER2013
from fer_pipeline.errors import DatasetError, TooManyBadRowsError
from fer_pipeline.manifest import SourceFile
from fer_pipeline.selection import KEPT, OUTCOMES, SPLITS

log = logging.getLogger(__name__)

_LAST_CODE_OF_FIVE = 4


@dataclass
class Books:
    """What was read, and what became of it.

    Attributes:
        read: How many records there were.
        dropped: Sound records that are left out, by cause.
        quarantined: Records that cannot be read, by reason.
        pool: Training records by class, before validation and test are drawn from them.
        evaluation: Validation and test records that the source names as such.
        offsets: The number in its file of a block's first record, where it is not 0.
        sources: What was read of each file, or of each folder of images.
        codes: The largest code among the labels of each source, -1 where there is none.
    """

    read: int = 0
    dropped: Counter[Cause] = field(default_factory=Counter)
    quarantined: Counter[Reason] = field(default_factory=Counter)
    pool: Counter[int] = field(default_factory=Counter)
    evaluation: Counter[Split] = field(default_factory=Counter)
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    sources: list[SourceFile] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, tallies: Iterable[Mapping[str, Any]], by_folder: bool = False) -> Books:
        """Adds up what was counted.

        Args:
            tallies: See `spark.passes.tally`.
            by_folder: Whether a source is a folder of images: its label is one of many.
        """
        books = cls()
        by_source: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in tallies:
            by_source[row["source"]].append(row)
            books._enter(row)
        for name, rows in sorted(by_source.items()):
            of = "the folders of images" if by_folder else name
            books.codes[of] = max(books.codes.get(of, -1), *(row["code"] for row in rows))
            books.sources.append(_source(name, rows))
        books.offsets = block_offsets(
            (name, row["block"], row["n"]) for name, rows in by_source.items() for row in rows
        )
        return books

    def _enter(self, row: Mapping[str, Any]) -> None:
        self.read += row["n"]
        if row["outcome"] == KEPT:
            split = SPLITS[row["split"]]
            if split is Split.TRAIN:
                self.pool[row["label"]] += row["n"]
            else:
                self.evaluation[split] += row["n"]
            return
        why = OUTCOMES[row["outcome"]]
        if isinstance(why, Reason):
            self.quarantined[why] += row["n"]
        else:
            self.dropped[why] += row["n"]

    def check(self, config: Config) -> None:
        """Stops a run that would make no good dataset, before anything is written.

        Raises:
            TooManyBadRowsError: More records are bad than `input.max_quarantined_fraction` allows.
            DatasetError: There is no record to train on.
        """
        bad = sum(self.quarantined.values())
        # Not "allowed < bad": 0.29 of 100 is a little less than 29 in floating point.
        if bad / self.read - config.input.max_quarantined_fraction > 1e-12:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in self.quarantined.most_common())
            worst = max(self.sources, key=lambda source: source.quarantined)
            raise TooManyBadRowsError(
                f"{bad} of {self.read} records are bad, more than input.max_quarantined_fraction"
                f" {config.input.max_quarantined_fraction:g} allows ({reasons}); most of"
                f" them in {worst.path}; nothing was written"
            )
        if not self.pool:
            dropped = ", ".join(f"{cause}: {n}" for cause, n in self.dropped.items()) or "none"
            raise DatasetError(
                f"no training rows are left of {self.read} records (dropped: {dropped}; validation"
                f" and test: {sum(self.evaluation.values())}); check classes and"
                f" split.usage_to_split"
            )
        self._warn_of_codes(config)

    def _warn_of_codes(self, config: Config) -> None:
        """Warns of sources that number five emotions in an order of their own, as system E does."""
        default = {str(code): name for code, name in enumerate(FER2013)}
        if config.input.emotions != default:
            return
        for source, code in self.codes.items():
            if 0 <= code <= _LAST_CODE_OF_FIVE:
                log.warning(
                    "%s: its codes never exceed %d, FER2013's go up to 6; if they mean other"
                    " emotions than angry, disgust, fear, happy, sad, say which with"
                    " input.emotions",
                    source,
                    code,
                )


def _source(name: str, rows: list[Mapping[str, Any]]) -> SourceFile:
    return SourceFile(
        path=name,
        records=sum(row["n"] for row in rows),
        quarantined=sum(row["n"] for row in rows if 0 <= row["outcome"] < len(Reason)),
        fingerprint=checksum(sum(row["low"] + (row["high"] << 32) for row in rows)),
    )


def block_offsets(counts: Iterable[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
    """The number of the first record of each block, where it is not 0.

    Args:
        counts: The number of records by source and block.
    """
    of_source: dict[str, dict[int, int]] = defaultdict(dict)
    for source, block, count in counts:
        of_source[source][block] = of_source[source].get(block, 0) + count
    offsets = {}
    for source, blocks in of_source.items():
        first = 0
        for block, count in sorted(blocks.items()):
            if first:
                offsets[source, block] = first
            first += count
    return offsets


def checksum(total: int) -> str:
    """A sum of 64-bit hashes as 16 hexadecimal digits; the order of summation does not matter."""
    return f"{total % 2**64:016x}"
