"""Writing of the quarantine files: the records that cannot be read, with their errors."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import build_arrow_schema
from fer_pipeline.data.block_offsets import BlockOffsets
from fer_pipeline.data.dataset_files import DATASET, QUARANTINE_FOLDER
from fer_pipeline.data.outcomes import Outcome
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.spark.read_records import Batches
from fer_pipeline.spark.record_store import DeduplicatedPartition, RecordStore
from fer_pipeline.spark.session import get_task_index
from fer_pipeline.spark.steps import error_context

_COLUMNS = build_arrow_schema(schema.QUARANTINE)
_ROWS_PER_FILE = 1_000_000


def write_quarantine(
    store: RecordStore, folder: Path, offsets: BlockOffsets, quarantined_count: int
) -> list[str]:
    """Write the records that cannot be read, and their errors, to Parquet files.

    Args:
        store: Store of all records.
        folder: Folder of the dataset.
        offsets: Number of the first record of each block within its input file, from which the
            record numbers are computed. A block is the part of a file that one Spark task reads.
        quarantined_count: Number of quarantined records; no file is written if it is 0.

    Returns:
        Paths of the files, relative to the dataset's folder.
    """
    if not quarantined_count:
        return []

    def select_quarantined(partition: DeduplicatedPartition) -> pa.Table:
        """Return the quarantined records of one partition."""
        return _select_quarantined(partition, offsets)

    def write_file(batches: Batches) -> Batches:
        """Write the quarantined records of one task to a file, and yield its description."""
        yield _write_quarantine_file(batches, folder)

    quarantined = store.map_partitions(select_quarantined, schema.format_ddl(schema.QUARANTINE))
    files = quarantined.coalesce(1 + quarantined_count // _ROWS_PER_FILE)
    written = files.mapInArrow(write_file, "path string, rows bigint").collect()
    if sum(row.rows for row in written) != quarantined_count:
        raise RuntimeError(f"{quarantined_count} records to quarantine, wrote {written}")
    return sorted(row.path for row in written)


def _select_quarantined(partition: DeduplicatedPartition, offsets: BlockOffsets) -> pa.Table:
    """Return the records of a partition that cannot be read, with the columns of the quarantine.

    These are exactly the records without an image hash.

    Args:
        partition: Records of one partition.
        offsets: Number of the first record of each block within its input file, from which the
            record numbers are computed. A block is the part of a file that one Spark task reads.
    """
    records = partition.columns.filter(partition.columns.column("image_hash").is_null())
    sources = records.column("source")
    record_numbers = offsets.compute_record_numbers(
        sources,
        records.column("block"),
        records.column("position").to_numpy(),
    )
    columns = {
        "source": sources,
        "record": record_numbers,
        "reason": [str(Outcome(code).reason) for code in records.column("outcome").to_pylist()],
        "detail": records.column("detail"),
        "excerpt": records.column("excerpt"),
    }
    return pa.table(columns, schema=_COLUMNS)


def _write_quarantine_file(batches: Batches, folder: Path) -> pa.RecordBatch:
    """Write one Parquet file of quarantined records, sorted by source and record number.

    Args:
        batches: Quarantined records, with the columns of the file.
        folder: Folder of the dataset, which contains the folder of the quarantine.

    Returns:
        A batch of one row with the columns `path`, relative to `folder`, and `rows`.
    """
    rows = pa.Table.from_batches(list(batches), _COLUMNS)
    rows = rows.sort_by([("source", "ascending"), ("record", "ascending")])
    path = f"{QUARANTINE_FOLDER}/{DATASET.make_data_file_name(get_task_index())}"
    with error_context(f"writing {path}"), create_data_file(folder / path) as sink:
        pq.write_table(rows, sink)
    return pa.RecordBatch.from_pydict({"path": [path], "rows": [len(rows)]})
