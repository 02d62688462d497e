"""Labels from the votes of several annotators, in the format of FER+.

FER+ (Barsoum, Zhang, Canton Ferrer, Zhang, "Training deep networks for facial expression
recognition with crowd-sourced label distribution", ICMI 2016) contains the votes of ten annotators
for each image of FER2013, in the same order. The annotators voted for one of eight emotions, for
"unknown", or for "NF" (not a face).
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
from fer_pipeline.text import suggest_name

_USAGE = "usage"
_IMAGE_NAME = "image name"
_UNKNOWN = "unknown"
_NO_FACE = "nf"
_WHOLE_NUMBER = re.compile(r"\s*\d{1,9}\s*", re.ASCII)


@dataclass(frozen=True)
class Votes:
    """The votes on the n images of one file, in the order of the images; sent to Spark's workers.

    Attributes:
        path: Path of the votes file.
        counts: Number of votes for each class, in the order of the class indices, of shape
            (n, classes); unsigned integers of the smallest sufficient type.
        no_face: Whether "not a face" has more votes than any other column, bool of shape (n,).
        usage_codes: Index of each image's usage in `usage_names`, of shape (n,).
        usage_names: Distinct usages in the file, in lower case; an empty text for images without
            a usage. FER2013's column `Usage` assigns each image to a split.
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
        """Choose the class with the most votes of the annotators for each image.

        If several classes have the most votes, the source's own label is chosen if it is one of
        these classes; otherwise the image is dropped. An image is also dropped if "not a face" has
        more votes than any other column, or if no class has a vote.

        Args:
            records: Indices, from 0, of m images in the file, of shape (m,).
            source_labels: Class index of each image according to the source, of shape (m,); -1 if
                it has no class.

        Returns:
            labels: Class index of each image, int32 of shape (m,); -1 if the image is dropped.
            outcomes: `Outcome` of each image, int8 of shape (m,): KEPT, or the reason to drop it.
        """
        counts = self.counts[records]
        has_most = counts == counts.max(axis=1, keepdims=True)
        is_tied = has_most.sum(axis=1) > 1
        rows = np.arange(len(source_labels))
        source_has_most = (source_labels >= 0) & has_most[rows, source_labels]
        # If several conditions hold, np.select uses the first.
        conditions = [
            self.no_face[records],
            ~counts.any(axis=1),
            is_tied & ~source_has_most,
        ]
        reasons = [Outcome.VOTED_NO_FACE, Outcome.NO_VOTES, Outcome.TIED_VOTES]
        outcomes = np.select(conditions, reasons, Outcome.KEPT).astype(np.int8)
        labels = np.where(is_tied, source_labels, counts.argmax(axis=1))
        return np.where(outcomes == Outcome.KEPT, labels, -1).astype(np.int32), outcomes

    def compute_distributions(self, records: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the distribution of the votes over the classes for each image.

        Args:
            records: Indices, from 0, of m images in the file, each with at least one vote for a
                class.

        Returns:
            Fraction of the votes for each class, float32 of shape (m, classes).
        """
        counts = self.counts[records].astype(np.float64)
        return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def require_matching_usage(self, record: int, usage: str | None, source: str) -> None:
        """Check that a record's usage agrees with the votes file; a missing usage is accepted.

        The usage is FER2013's name of the part that an image belongs to, such as PublicTest.

        Args:
            record: 0-based number of the record in the file.
            usage: Usage text of the record; None if it has none.
            source: Name of the record's file, for the error message.

        Raises:
            InputError: The usages differ, so the two files do not contain the same images in the
                same order.
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
    """Read and check a CSV file with the votes of annotators on each image, in the FER+ format.

    The first line contains the names of the columns, in any order and case: the emotions (or their
    synonyms), `unknown`, `NF`, and optionally `Usage` and `Image name`. The image names are
    ignored, and blank lines are skipped.

    Args:
        path: Path of the file, a local path or a `file:` URL.
        classes: Emotions of the dataset, in the order of their class indices.

    Raises:
        StorageError: The file cannot be read.
        InputError: A line is not valid CSV or has a wrong number of fields, a column is unknown or
            missing or appears twice, or a number of votes is not a whole number.
    """
    lines = storage.read_text(parse_path(path)).removeprefix("\ufeff").splitlines()
    rows = _iterate_rows(lines, path)
    _, header = next(rows, (1, []))
    columns = _parse_header(header, classes, path)
    usages, vote_counts = [], []
    for line_number, fields in rows:
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, line {line_number}: {len(fields)} fields, its first line has"
                f" {len(columns)}"
            )
        cells = dict(zip(columns, fields, strict=True))
        usages.append(cells.pop(_USAGE, "").strip().lower())
        cells.pop(_IMAGE_NAME, None)
        vote_counts.append(
            [_parse_vote_count(text, name, line_number, path) for name, text in cells.items()]
        )
    voted_columns = [name for name in columns if name not in (_USAGE, _IMAGE_NAME)]
    table = np.array(vote_counts, np.int64).reshape(-1, len(voted_columns))
    no_face_column = voted_columns.index(_NO_FACE)
    other_votes = np.delete(table, no_face_column, axis=1)
    distinct_usages, usage = np.unique(np.array(usages, str), return_inverse=True)
    return Votes(
        path=path,
        counts=_convert_to_smallest_type(table[:, [voted_columns.index(name) for name in classes]]),
        no_face=table[:, no_face_column] > other_votes.max(axis=1),
        usage_codes=_convert_to_smallest_type(usage),
        usage_names=tuple(distinct_usages.tolist()),
    )


def _iterate_rows(lines: Sequence[str], path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the 1-based line number and the fields of each line that is not blank.

    Raises:
        InputError: A line is not valid CSV; the message contains `path`.
    """
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error


def _parse_header(header: Sequence[str], classes: Sequence[str], path: str) -> list[str]:
    """Convert the header of a votes file to canonical column names, and check that none is missing.

    Args:
        header: Fields of the first line.
        classes: Emotions of the dataset; each needs a column.
        path: Path of the votes file, for error messages.

    Raises:
        InputError: A column is unknown or appears twice, or the column of a class, `unknown` or
            `NF` is missing.
    """
    columns = [_canonicalize_column(field, path) for field in header]
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{path}: its first line contains {name} twice")
    missing = [name for name in (*classes, _UNKNOWN, _NO_FACE) if name not in columns]
    if missing:
        shown_header = ", ".join(field.strip()[:20] for field in header[:14])
        raise InputError(
            f"{path}: no column {', '.join(missing)} in its first line (got: {shown_header}); a"
            " file of votes has one for each of the classes, unknown and NF"
        )
    return columns


def _canonicalize_column(field: str, path: str) -> str:
    """Return the canonical name of a column of a votes file.

    This is an emotion, or one of `usage`, `image name`, `unknown` and `nf` (not a face).

    Raises:
        InputError: The column is unknown; the message suggests the most similar name.
    """
    word = " ".join(field.lower().split())
    other_columns = (_USAGE, _IMAGE_NAME, _UNKNOWN, _NO_FACE)
    if word in other_columns:
        return word
    try:
        return emotions.canonical_emotion(word)
    except ValueError:
        hint = suggest_name(
            word, [*other_columns, *emotions.KNOWN, "happiness", "sadness", "anger"]
        )
        raise InputError(f"{path}: unknown column {field.strip()[:40]!r}: {hint}") from None


def _parse_vote_count(text: str, column: str, line_number: int, path: str) -> int:
    """Parse the number of votes in a field.

    Args:
        text: Content of the field.
        column: Name of the column, for the error message.
        line_number: 1-based number of the line, for the error message.
        path: Path of the votes file, for the error message.

    Raises:
        InputError: The content is not a whole number.
    """
    if not _WHOLE_NUMBER.fullmatch(text):
        raise InputError(
            f"{path}, line {line_number}: {column} is {text.strip()[:40]!r}, expected a whole"
            " number of votes, 0 or more"
        )
    return int(text)


def _convert_to_smallest_type(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """Convert numbers to the smallest unsigned integer type that can represent all of them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
