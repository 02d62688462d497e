"""Joining votes with the records of a source, by the records' numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fer_pipeline.data import votes
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError
from fer_pipeline.spark.input_files import InputFiles


def load_votes(
    sources: InputFiles, path: str, classes: Sequence[str]
) -> tuple[Votes, Mapping[tuple[str, int], int]]:
    """Reads the votes on the records of a source, and counts these to number them.

    Args:
        sources: The files; one CSV.
        path: Of the votes.
        classes: The emotions of the dataset in the order of their labels.

    Returns:
        The votes; and the number of the first record of each block, where it is not 0.

    Raises:
        StorageError: The votes cannot be read.
        InputError: They are none, or not those of one CSV file.
    """
    found = votes.read(path, classes)
    if sources.kind != "csv" or sources.files != 1:
        got = f"{sources.files} {'CSV files' if sources.kind == 'csv' else 'images'}"
        raise InputError(
            f"{path}: these votes (labels.votes) go row by row with one CSV file, but the input is"
            f" {got}; give the one that was voted on"
        )
    offsets, records = sources.offsets(count=True)
    if records != len(found):
        raise InputError(
            f"{path}: holds votes on {len(found)} records, but the input has {records};"
            " both files must hold the same images in the same order"
        )
    return found, offsets
