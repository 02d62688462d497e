"""Layout of a dataset's files and folders, and the description of a dataset as a job's output."""

from __future__ import annotations

import json
from pathlib import Path

from fer_pipeline.data.dataset import is_dataset
from fer_pipeline.data.manifest import MANIFEST_FILE
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import OutputKind

QUARANTINE_FOLDER = "quarantine"


def get_split_folder(split: Split | str) -> str:
    """Return the name of the folder with the files of a split, relative to the dataset's folder.

    The name has the form `split=NAME`, which Spark and pyarrow read as a partition column.

    Args:
        split: The split or its name.
    """
    return f"split={split}"


def _list_data_files(folder: Path) -> list[str]:
    """Return the data files that `manifest.json` lists, as paths relative to a dataset's folder.

    These are the files of the splits and of the quarantine (records that cannot be read). The list
    is empty if the folder has no `manifest.json`.
    """
    if not is_dataset(folder):
        return []
    # The class Manifest is not used because it cannot read datasets of an older format version.
    manifest = json.loads(storage.read_text(folder / MANIFEST_FILE))
    return [*(file["path"] for file in manifest["files"]), *manifest["quarantine"]]


DATASET = OutputKind(
    name="a dataset",
    format="fer_pipeline dataset",
    commit_file=MANIFEST_FILE,
    data_folders=(*map(get_split_folder, Split), QUARANTINE_FOLDER),
    data_prefix="part",
    list_data_files=_list_data_files,
)
