"""The files and folders of a dataset, and its kind of output."""

from __future__ import annotations

import json
from pathlib import Path

from fer_pipeline.data.dataset import is_dataset
from fer_pipeline.data.manifest import MANIFEST_FILE
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import OutputKind

QUARANTINE_FOLDER = "quarantine"


def split_folder(split: Split | str) -> str:
    """Return the folder of a split's files, relative to that of the dataset.

    Args:
        split: The split or its name; Spark and pyarrow read it as a partition column.
    """
    return f"split={split}"


def _list_data_files(folder: Path) -> list[str]:
    if not is_dataset(folder):
        return []
    # Without the class Manifest: the dataset may have an older format, which it does not read.
    document = json.loads(storage.read_text(folder / MANIFEST_FILE))
    return [*(file["path"] for file in document["files"]), *document["quarantine"]]


DATASET = OutputKind(
    name="a dataset",
    format="fer_pipeline dataset",
    commit_file=MANIFEST_FILE,
    data_folders=(*map(split_folder, Split), QUARANTINE_FOLDER),
    data_prefix="part",
    list_data_files=_list_data_files,
)
