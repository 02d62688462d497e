"""Loading of the votes on the records of an input file."""

from __future__ import annotations

from collections.abc import Sequence

from fer_pipeline.data import votes
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.votes import Votes
from fer_pipeline.errors import InputError
from fer_pipeline.spark.input_files import InputFiles


def load_votes_and_block_offsets(
    files: InputFiles, path: str, classes: Sequence[str]
) -> tuple[Votes, BlockOffsets]:
    """Read the annotators' votes on the images of a CSV file, and the offsets of its blocks.

    A row of the votes file belongs to the record with the same number in the CSV file. Spark
    divides a large CSV file into blocks, and each task reads one block. To compute the numbers of
    its records, a task needs the offset of its block: the number of the block's first record.

    Args:
        files: Input files; there must be exactly one CSV file.
        path: Path of the votes file, in the format of FER+.
        classes: Emotions of the dataset, in the order of their class indices.

    Returns:
        The votes, and the offsets of the blocks of the CSV file.

    Raises:
        StorageError: The votes file cannot be read.
        InputError: The votes file is invalid, the input is not a single CSV file, or the numbers of
            records in the two files differ.
    """
    loaded_votes = votes.read_votes(path, classes)
    if files.kind != "csv" or files.file_count != 1:
        source = f"{files.file_count} {'CSV files' if files.kind == 'csv' else 'images'}"
        raise InputError(
            f"{path}: these votes (labels.votes) go row by row with one CSV file, but the input is"
            f" {source}; give the one that was voted on"
        )
    offsets, record_count = files.compute_block_offsets(always=True)
    if record_count != len(loaded_votes):
        raise InputError(
            f"{path}: holds votes on {len(loaded_votes)} records, but the input has {record_count};"
            " both files must hold the same images in the same order"
        )
    return loaded_votes, offsets
