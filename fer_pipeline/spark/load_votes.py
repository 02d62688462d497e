"""Votes on the records of a source, joined by the records' numbers."""

from __future__ import annotations

from collections.abc import Sequence

from fer_pipeline.data import votes
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError
from fer_pipeline.spark.input_files import InputFiles


def load_votes(files: InputFiles, path: str, classes: Sequence[str]) -> tuple[Votes, BlockOffsets]:
    """Read the votes on the records of a source, and count the records to number them.

    Args:
        files: Files of the source; one CSV.
        path: File of the votes.
        classes: The emotions of the dataset in the order of their labels.

    Raises:
        StorageError: The votes cannot be read.
        InputError: The file holds no votes, or not those on one CSV file.
    """
    loaded = votes.read_votes(path, classes)
    if files.kind != "csv" or files.file_count != 1:
        source = f"{files.file_count} {'CSV files' if files.kind == 'csv' else 'images'}"
        raise InputError(
            f"{path}: these votes (labels.votes) go row by row with one CSV file, but the input is"
            f" {source}; give the one that was voted on"
        )
    offsets, record_count = files.compute_block_offsets(always=True)
    if record_count != len(loaded):
        raise InputError(
            f"{path}: holds votes on {len(loaded)} records, but the input has {record_count};"
            " both files must hold the same images in the same order"
        )
    return loaded, offsets
