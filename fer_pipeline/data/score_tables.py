"""Scores as one table in a text format, in addition to the Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fer_pipeline.data import schema
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import SCORE_TABLES

TableFormat = Literal["csv", "jsonl"]
"""CSV with a header, or JSON lines."""


def write_score_table(folder: Path, files: Sequence[str], table_format: TableFormat) -> Path:
    """Write the rows of Parquet files of scores to one file, without the images of the faces.

    The rows are read a few at a time.

    Args:
        folder: Folder of the scores.
        files: Paths of the Parquet files, relative to the folder.
        table_format: Format of the file.

    Returns:
        The path of the file.

    Raises:
        StorageError: The file cannot be written.
    """
    path = folder / SCORE_TABLES[table_format]
    with storage.atomic_write(path) as temporary:
        batches = _iterate_batches(folder, files)
        if table_format == "csv":
            _write_csv(temporary, batches)
        else:
            _write_json_lines(temporary, batches)
    return path


def _iterate_batches(folder: Path, files: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of Parquet files in batches; there is at least one batch in each file."""
    for file in files:
        with (folder / file).open("rb") as stream:
            parquet = pq.ParquetFile(stream)
            names = [name for name in parquet.schema_arrow.names if name != schema.FACE_IMAGE]
            yield from parquet.iter_batches(columns=names)


def _write_csv(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Write batches to a CSV file; a missing value is an empty field."""
    first = next(batches)
    with pa.csv.CSVWriter(str(path), first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _write_json_lines(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Write each row as a JSON object on a line of its own; a missing value is null."""
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())
