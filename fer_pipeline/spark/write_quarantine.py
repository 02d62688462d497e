"""The records that cannot be read, kept with what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.data import schema
from fer_pipeline.data.arrow import arrow_schema
from fer_pipeline.data.dataset_files import DATASET, QUARANTINE_FOLDER
from fer_pipeline.data.split_assignment import OUTCOMES
from fer_pipeline.io.storage import create_data_file
from fer_pipeline.spark.read_records import Batches, record_numbers
from fer_pipeline.spark.record_store import DecidedPartition, RecordStore
from fer_pipeline.spark.session import task_id


def write_quarantine(
    gathered: RecordStore, folder: Path, offsets: Mapping[tuple[str, int], int], count: int
) -> list[str]:
    """Writes the records that cannot be read.

    Args:
        gathered: The records.
        folder: The dataset's folder.
        offsets: See `Recipe`.
        count: How many such records there are.

    Returns:
        The files, relative to the folder.
    """
    if not count:
        return []
    columns = arrow_schema(schema.QUARANTINE)

    def bad(partition: DecidedPartition) -> pa.Table:
        facts = partition.facts.filter(partition.facts.column("image_hash").is_null())
        values = {
            "source": facts.column("source"),
            "record": record_numbers(facts, offsets),
            "reason": [str(OUTCOMES[code]) for code in facts.column("outcome").to_pylist()],
            "detail": facts.column("detail"),
            "excerpt": facts.column("excerpt"),
        }
        return pa.table(values, schema=columns)

    def write(batches: Batches) -> Batches:
        rows = pa.Table.from_batches(list(batches), columns)
        rows = rows.sort_by([("source", "ascending"), ("record", "ascending")])
        path = f"{QUARANTINE_FOLDER}/{DATASET.unique_name(task_id())}"
        with create_data_file(folder / path) as sink:
            pq.write_table(rows, sink)
        yield pa.RecordBatch.from_pydict({"path": [path], "rows": [len(rows)]})

    rows = gathered.each(bad, schema.ddl(schema.QUARANTINE))
    files = rows.coalesce(1 + count // 1_000_000).mapInArrow(write, "path string, rows bigint")
    written = files.collect()
    if sum(row.rows for row in written) != count:
        raise RuntimeError(f"{count} records to quarantine, wrote {written}")
    return sorted(row.path for row in written)
