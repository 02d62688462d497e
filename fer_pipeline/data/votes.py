"""Labels by the votes of several people, in the form of FER+.

FER+ (Barsoum, Zhang, Canton Ferrer, Zhang, "Training deep networks for facial expression
recognition with crowd-sourced label distribution", ICMI 2016) names the votes of ten annotators for
each image of FER2013, row by row: for eight emotions, for unknown, and for NF, not a face.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import emotions
from fer_pipeline.data.outcomes import DropReason
from fer_pipeline.errors import InputError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path

_USAGE, _NAME, _UNKNOWN, _NO_FACE = "usage", "image name", "unknown", "nf"
_CAUSES = (None, DropReason.NO_FACE, DropReason.NO_VOTES, DropReason.TIE)
_WHOLE = re.compile(r"\s*\d{1,9}\s*", re.ASCII)


@dataclass(frozen=True)
class Votes:
    """The votes for the images of one file, row by row; travels to the workers.

    Attributes:
        path: Of the file of the votes.
        counts: Votes for each class in the order of the labels, whole numbers of the smallest type
            that holds them, of shape (n, classes).
        no_face: Whether NF has more votes than any other column, bool of shape (n,).
        usage: A row's position in `usages`, of shape (n,).
        usages: The usages that the file names, in lower case; one empty text where it names none.
    """

    path: str
    counts: npt.NDArray[np.unsignedinteger]
    no_face: npt.NDArray[np.bool_]
    usage: npt.NDArray[np.unsignedinteger]
    usages: tuple[str, ...]

    def __len__(self) -> int:
        """How many images were voted on."""
        return len(self.counts)

    def decide(
        self, records: npt.NDArray[np.int64], given: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int32], list[DropReason | None]]:
        """The class with most votes.

        Args:
            records: Numbers of records, of shape (n,).
            given: The class that the source itself says, of shape (n,); -1 where it is none.

        Returns:
            The classes, int32 of shape (n,): of those that tie, the one that the source says; -1
            where there is none. And for each record why it is to be dropped, if it is.
        """
        counts = self.counts[records]
        first = counts == counts.max(axis=1, keepdims=True)
        tied = first.sum(axis=1) > 1
        backed = (given >= 0) & first[np.arange(len(given)), given]
        # The first one that holds is the cause.
        holds = [self.no_face[records], ~counts.any(axis=1), tied & ~backed]
        why = np.select(holds, [1, 2, 3], 0)
        label = np.where(tied, given, counts.argmax(axis=1))
        return np.where(why == 0, label, -1).astype(np.int32), [_CAUSES[code] for code in why]

    def distribution(self, records: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The parts of the votes for each class: float32 of shape (n, classes).

        Args:
            records: Numbers of records that have votes for the classes.
        """
        counts = self.counts[records].astype(np.float64)
        return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def require_usage(self, record: int, usage: str | None, source: str) -> None:
        """Makes sure that a record is of the usage that its votes say; nothing says nothing.

        Raises:
            InputError: It is of another: the files do not hold the same images in the same order.
        """
        said, voted = (usage or "").strip(), self.usages[self.usage[record]]
        if said and voted and said.lower() != voted:
            raise InputError(
                f"{self.path}: record {record} has the usage {voted!r}, in {source} it has"
                f" {said.lower()[:80]!r}; both files must hold the same images in the same order"
            )


def read(path: str, classes: Sequence[str]) -> Votes:
    """Reads a CSV of votes.

    Its first line names the columns, in any order and case: one for each emotion (or a synonym of
    it), `unknown`, `NF`, and perhaps `Usage` and `Image name`, of which the last is not read. Blank
    lines are no rows.

    Args:
        path: A local path or a `file:` URL.
        classes: The emotions of the dataset in the order of their labels.

    Raises:
        StorageError: The file cannot be read.
        InputError: A column is unknown, missing or there twice, or a vote is no whole number.
    """
    lines = storage.read_text(parse_path(path)).removeprefix("\ufeff").splitlines()
    rows = _rows(lines, path)
    _, header = next(rows, (1, []))
    names = _columns(header, classes, path)
    usages, numbers = [], []
    for line, fields in rows:
        if len(fields) != len(names):
            raise InputError(
                f"{path}, line {line}: {len(fields)} fields, its first line has {len(names)}"
            )
        cells = dict(zip(names, fields, strict=True))
        usages.append(cells.pop(_USAGE, "").strip().lower())
        cells.pop(_NAME, None)
        numbers.append([_number(text, name, line, path) for name, text in cells.items()])
    voted = [name for name in names if name not in (_USAGE, _NAME)]
    table = np.array(numbers, np.int64).reshape(-1, len(voted))
    others = np.delete(table, voted.index(_NO_FACE), axis=1)
    counts = table[:, [voted.index(name) for name in classes]]
    known, usage = np.unique(np.array(usages, str), return_inverse=True)
    return Votes(
        path=path,
        counts=_small(counts),
        no_face=table[:, voted.index(_NO_FACE)] > others.max(axis=1),
        usage=_small(usage),
        usages=tuple(known.tolist()),
    )


def _rows(lines: Sequence[str], path: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not blank, and the line's 1-based number."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error


def _columns(header: Sequence[str], classes: Sequence[str], path: str) -> list[str]:
    """What the columns mean: an emotion's one name, or one of the four other words."""
    names = [_meaning(field, path) for field in header]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: its first line names {name} twice")
    missing = [name for name in (*classes, _UNKNOWN, _NO_FACE) if name not in names]
    if missing:
        found = ", ".join(field.strip()[:20] for field in header[:14])
        raise InputError(
            f"{path}: no column {', '.join(missing)} in its first line (got: {found}); a file of"
            " votes has one for each of the classes, unknown and NF"
        )
    return names


def _meaning(field: str, path: str) -> str:
    word = " ".join(field.lower().split())
    others = (_USAGE, _NAME, _UNKNOWN, _NO_FACE)
    if word in others:
        return word
    try:
        return emotions.canonical_emotion(word)
    except ValueError:
        known = [*others, *emotions.KNOWN, "happiness", "sadness", "anger"]
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise InputError(f"{path}: unknown column {field.strip()[:40]!r}: {hint}") from None


def _number(text: str, name: str, line: int, path: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise InputError(
            f"{path}, line {line}: {name} is {text.strip()[:40]!r}, expected a whole number of"
            " votes, 0 or more"
        )
    return int(text)


def _small(values: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """The values in the smallest unsigned type that holds them all."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
