"""Labels by the votes of several people, in the format of FER+.

FER+ (Barsoum, Zhang, Canton Ferrer, Zhang, "Training deep networks for facial expression
recognition with crowd-sourced label distribution", ICMI 2016) holds the votes of ten annotators for
each image of FER2013, row by row: for eight emotions, for unknown, and for NF, not a face.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer_pipeline.data import emotions
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.errors import InputError
from fer_pipeline.io import storage
from fer_pipeline.io.paths import parse_path
from fer_pipeline.text import did_you_mean

_USAGE = "usage"
_IMAGE_NAME = "image name"
_UNKNOWN = "unknown"
_NO_FACE = "nf"
_WHOLE_NUMBER = re.compile(r"\s*\d{1,9}\s*", re.ASCII)


@dataclass(frozen=True)
class Votes:
    """The votes on the images of one file, row by row; sent to the workers.

    Attributes:
        path: File of the votes.
        counts: Votes for each class in the order of the labels, whole numbers of the smallest type
            that holds them, of shape (n, classes).
        no_face: Whether NF has more votes than any other column, bool of shape (n,).
        usage: Position in `usages` of each row's usage, of shape (n,).
        usages: Usages that the file names, in lower case; one empty text if it names none.
    """

    path: str
    counts: npt.NDArray[np.unsignedinteger]
    no_face: npt.NDArray[np.bool_]
    usage_codes: npt.NDArray[np.unsignedinteger]
    usage_names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of images that were voted on."""
        return len(self.counts)

    def choose_labels(
        self, records: npt.NDArray[np.int64], source_labels: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
        """Return the class with most votes.

        Args:
            records: Numbers of records, of shape (n,).
            source_labels: Class that the source itself names, of shape (n,); -1 without one.

        Returns:
            The classes, int32 of shape (n,), the one that the source names if several tie, -1
            without one; and why each record is dropped, int8 of shape (n,), `Outcome.KEPT` if it is
            not.
        """
        counts = self.counts[records]
        has_most = counts == counts.max(axis=1, keepdims=True)
        is_tied = has_most.sum(axis=1) > 1
        rows = np.arange(len(source_labels))
        source_has_most = (source_labels >= 0) & has_most[rows, source_labels]
        # The first condition that holds is the reason.
        conditions = [
            self.no_face[records],
            ~counts.any(axis=1),
            is_tied & ~source_has_most,
        ]
        reasons = [Outcome.NO_FACE, Outcome.NO_VOTES, Outcome.TIED_VOTES]
        outcomes = np.select(conditions, reasons, Outcome.KEPT).astype(np.int8)
        labels = np.where(is_tied, source_labels, counts.argmax(axis=1))
        return np.where(outcomes == Outcome.KEPT, labels, -1).astype(np.int32), outcomes

    def compute_distributions(self, records: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the share of each class in the votes: float32 of shape (n, classes).

        Args:
            records: Numbers of records that have votes for the classes.
        """
        counts = self.counts[records].astype(np.float64)
        return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def require_matching_usage(self, record: int, usage: str | None, source: str) -> None:
        """Check that a record has the usage that its votes name; a missing usage fits any.

        Raises:
            InputError: It has another: the files do not hold the same images in the same order.
        """
        source_usage = (usage or "").strip()
        voted_usage = self.usage_names[self.usage_codes[record]]
        if source_usage and voted_usage and source_usage.lower() != voted_usage:
            raise InputError(
                f"{self.path}: record {record} has the usage {voted_usage!r}, in {source} it has"
                f" {source_usage.lower()[:80]!r}; both files must hold the same images in the same"
                " order"
            )


def read_votes(path: str, classes: Sequence[str]) -> Votes:
    """Read a CSV of votes.

    Its first line names the columns, in any order and case: one for each emotion (or a synonym of
    it), `unknown`, `NF`, and optionally `Usage` and `Image name`, of which the last is ignored.
    Blank lines are skipped.

    Args:
        path: A local path or a `file:` URL.
        classes: The emotions of the dataset in the order of their labels.

    Raises:
        StorageError: The file cannot be read.
        InputError: A column is unknown, missing or appears twice, or a vote is no whole number.
    """
    lines = storage.read_text(parse_path(path)).removeprefix("\ufeff").splitlines()
    rows = _rows(lines, path)
    _, header = next(rows, (1, []))
    columns = _columns(header, classes, path)
    usages, numbers = [], []
    for line, fields in rows:
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {line}: {len(fields)} fields, its first line has {len(columns)}"
            )
        cells = dict(zip(columns, fields, strict=True))
        usages.append(cells.pop(_USAGE, "").strip().lower())
        cells.pop(_IMAGE_NAME, None)
        numbers.append([_number(text, name, line, path) for name, text in cells.items()])
    voted_columns = [name for name in columns if name not in (_USAGE, _IMAGE_NAME)]
    table = np.array(numbers, np.int64).reshape(-1, len(voted_columns))
    no_face_column = voted_columns.index(_NO_FACE)
    other_votes = np.delete(table, no_face_column, axis=1)
    distinct_usages, usage = np.unique(np.array(usages, str), return_inverse=True)
    return Votes(
        path=path,
        counts=_as_smallest_type(table[:, [voted_columns.index(name) for name in classes]]),
        no_face=table[:, no_face_column] > other_votes.max(axis=1),
        usage_codes=_as_smallest_type(usage),
        usage_names=tuple(distinct_usages.tolist()),
    )


def _rows(lines: Sequence[str], path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each line that is not blank, and the line's 1-based number."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error


def _columns(header: Sequence[str], classes: Sequence[str], path: str) -> list[str]:
    """Return the meaning of each column: an emotion's canonical name, or another known word."""
    columns = [_column(field, path) for field in header]
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{path}: its first line names {name} twice")
    missing = [name for name in (*classes, _UNKNOWN, _NO_FACE) if name not in columns]
    if missing:
        shown_header = ", ".join(field.strip()[:20] for field in header[:14])
        raise InputError(
            f"{path}: no column {', '.join(missing)} in its first line (got: {shown_header}); a"
            " file of votes has one for each of the classes, unknown and NF"
        )
    return columns


def _column(field: str, path: str) -> str:
    word = " ".join(field.lower().split())
    other_columns = (_USAGE, _IMAGE_NAME, _UNKNOWN, _NO_FACE)
    if word in other_columns:
        return word
    try:
        return emotions.canonical_emotion(word)
    except ValueError:
        hint = did_you_mean(
            word, [*other_columns, *emotions.KNOWN, "happiness", "sadness", "anger"]
        )
        raise InputError(f"{path}: unknown column {field.strip()[:40]!r}: {hint}") from None


def _number(text: str, name: str, line: int, path: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InputError(
            f"{path}, line {line}: {name} is {text.strip()[:40]!r}, expected a whole number of"
            " votes, 0 or more"
        )
    return int(text)


def _as_smallest_type(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """Return the numbers in the smallest unsigned type that holds them all."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
