"""Offsets with which the tasks find the votes on the records of an input file."""

from __future__ import annotations

from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError
from fer_pipeline.spark.input_files import InputFiles


def compute_vote_offsets(files: InputFiles, votes: Votes) -> BlockOffsets:
    """Return the offsets of the blocks of a CSV file, and check that the votes belong to the file.

    A row of the votes file belongs to the record with the same number in the CSV file. Spark
    divides a large CSV file into blocks, and each task reads one block. To compute the numbers of
    its records, a task needs the offset of its block: the number of the block's first record.

    Args:
        files: Input files; there must be exactly one CSV file.
        votes: Annotators' votes on the images of the CSV file.

    Raises:
        InputError: The input is not a single CSV file, or the numbers of records in the two files
            differ.
    """
    if files.kind != "csv" or files.file_count != 1:
        source = f"{files.file_count} {'CSV files' if files.kind == 'csv' else 'images'}"
        raise InputError(
            f"{votes.path}: these votes (labels.votes) go row by row with one CSV file, but the"
            f" input is {source}; give the one that was voted on"
        )
    offsets, record_count = files.compute_block_offsets(always=True)
    if record_count != len(votes):
        raise InputError(
            f"{votes.path}: holds votes on {len(votes)} records, but the input has {record_count};"
            " both files must hold the same images in the same order"
        )
    return offsets
