"""The preprocess job: creation of a dataset from CSV files or folders of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import find_dataset
from fer_pipeline.data.dataset_files import DATASET
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.data.votes import read_votes
from fer_pipeline.errors import InputError
from fer_pipeline.io import input_listing
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.paths import parse_path
from fer_pipeline.text import format_table

if TYPE_CHECKING:
    from fer_pipeline.spark.session import SparkSession


def preprocess(
    open_session: Callable[[], AbstractContextManager[SparkSession]],
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Create a dataset from CSV files or folders of images.

    A record is a row of a CSV file or an image file. Invalid records are quarantined: they are
    written to separate files with the reason. `manifest.json` is written last; a folder without it
    holds no dataset.

    Args:
        open_session: Function that returns the context manager of a Spark session. It is called
            only after the checks that need no Spark.
        inputs: Files, folders, archives and globs, as paths or URLs.
        output: Folder of the dataset.
        config: Configuration.
        overwrite: Whether an existing dataset may be replaced.

    Returns:
        The manifest of the dataset.

    Raises:
        InputError: An input is missing or invalid, too many records are quarantined, or the file
            with the annotators' votes on each image does not match the input.
        StorageError: A dataset already exists and `overwrite` is false, the folder contains other
            files, or the file with the votes cannot be read.
        DatasetError: No training records are left.
    """
    output_folder = OutputFolder(parse_path(output).absolute(), DATASET, overwrite=overwrite)
    output_folder.ensure_writable()
    dataset = find_dataset(inputs)
    if dataset is not None:
        raise InputError(
            f"{dataset}: is a finished dataset, which needs no preprocessing; train, evaluate and"
            " score read it"
        )
    input_listing.require_local_inputs(inputs)
    votes_path = config.labels.votes
    votes = read_votes(votes_path, config.class_names) if votes_path else None
    # This imports Spark, which takes a second, as its start does.
    from fer_pipeline.pipelines import run_preprocessing

    with open_session() as spark:
        return run_preprocessing.write_dataset(spark, inputs, votes, config, output_folder)


def format_report(published: Manifest, output: str) -> str:
    """Return the report of the job for the terminal: numbers of rows and records, and the checksum.

    Args:
        published: Manifest of the dataset.
        output: Folder of the dataset.
    """
    rows = published.rows
    kept_count = sum(sum(class_counts.values()) for class_counts in rows.kept.values())
    lines = [_format_row_counts(published), ""]
    lines.append(
        f"{rows.read:,} records read = {kept_count:,} kept + {sum(rows.dropped.values()):,} dropped"
        f" + {sum(rows.quarantined.values()):,} quarantined; {rows.written:,} rows written"
    )
    for outcome, counts_by_reason in (("dropped", rows.dropped), ("quarantined", rows.quarantined)):
        lines += [
            f"  {outcome}, {reason}: {count:,}"
            for reason, count in counts_by_reason.items()
            if count
        ]
    lines.append(f"checksum {published.checksum}")
    lines.append(f"dataset {output}")
    return "\n".join(lines)


def _format_row_counts(published: Manifest) -> str:
    """Return a table of the number of rows in each split, for each class and for all classes."""
    rows = [
        [name, *(f"{published.counts[split][name]:,}" for split in Split)]
        for name in published.classes
    ]
    rows.append(["all", *(f"{published.row_count(split):,}" for split in Split)])
    return format_table(rows, ["", *Split], ["left", "right", "right", "right"])
