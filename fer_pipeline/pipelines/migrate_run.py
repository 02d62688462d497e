"""Conversion of trained runs and exports that an older version of the package wrote.

Configuration keys, columns and fields get their present names. The model's own files stay as they
are. `scripts/migrate-run` runs this module.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from fer_pipeline.config import Config
from fer_pipeline.config.loader import read_yaml_mapping
from fer_pipeline.config.renamed_keys import RENAMED_KEYS, RENAMED_VALUES, pop_renamed_keys
from fer_pipeline.errors import FerError, RunError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import CONFIG_FILE, EXPORT_FOLDER, ExportFile, RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.text import one_line

_CONFIGS = (CONFIG_FILE, RunFile.UNFINISHED_CONFIG)
_HISTORIES = (RunFile.HISTORY, RunFile.UNFINISHED_HISTORY)
_CHECKPOINT_NOTES = "notes.json.npy"

_FORMAT_VERSION = 2
"""The format version of `model.json`, `export.json` and checkpoints that this module writes."""

_MODEL_FIELDS = {"best_trial": "best_restart"}
_HISTORY_FIELDS = {"trial": "restart"}
_CHECKPOINT_GROUPS = {"watched": "monitor", "measures": "metrics"}
_EXPORT_FIELDS = {"form": "format"}
_AGREEMENT_FIELDS = {
    "calibrated_on": "calibration_split",
    "same": "agreeing_images",
    "right": "correct_images",
    "float_right": "float_correct_images",
}


def migrate_run(folder: Path) -> list[Path]:
    """Convert the folder of a run or of an export in place, each file in one step.

    A conversion that was interrupted can be repeated: files that are already converted stay as they
    are, and the file that states the format of the folder is converted last.

    Args:
        folder: Folder of a run, finished or not, or of an export.

    Returns:
        Paths of the files that were converted.

    Raises:
        RunError: The folder is neither a run nor an export, or a file in it is damaged.
        StorageError: A file cannot be read or written.
    """
    names = (RunFile.MODEL_INFO, ExportFile.EXPORT_INFO, RunFile.CHECKPOINT, *_CONFIGS)
    if not any(storage.is_file(folder / name) for name in names):
        raise RunError(f"{folder}: is neither a run nor an export; name the folder of one")
    converters: dict[str, Callable[[Path], bool]] = {
        **dict.fromkeys(_CONFIGS, _migrate_config_file),
        **dict.fromkeys(_HISTORIES, _migrate_history),
        RunFile.CHECKPOINT: _migrate_checkpoint,
        ExportFile.EXPORT_INFO: _migrate_export_info,
        RunFile.MODEL_INFO: _migrate_model_info,
    }
    converted = []
    export = folder / EXPORT_FOLDER
    if storage.is_file(export / ExportFile.EXPORT_INFO):
        converted += migrate_run(export)
    for name, convert in converters.items():
        path = folder / name
        if storage.is_file(path) and convert(path):
            converted.append(path)
    return converted


def migrate_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the present keys and values.

    Args:
        tree: Nested mappings with keys of an older version; they stay as they are.

    Raises:
        ValidationError: The configuration is invalid with its present keys, too.
    """
    migrated: dict[str, Any] = copy.deepcopy(dict(tree))
    schedule = (tree.get("training") or {}).get("schedule") or {}
    # Both keys are one now. Only the one that the schedule used has a meaning.
    unused = "final" if schedule.get("kind") == "plateau" else "minimum"
    for old, stored in list(pop_renamed_keys(migrated)):
        if old == f"training.schedule.{unused}":
            continue
        *sections, key = RENAMED_KEYS[old].split(".")
        branch = migrated
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = RENAMED_VALUES[old][stored] if old in RENAMED_VALUES else stored
    return Config.model_validate(migrated).to_dict()


def _migrate_config_file(path: Path) -> bool:
    tree = read_yaml_mapping(path)
    if not list(pop_renamed_keys(copy.deepcopy(tree))):
        return False
    Config.model_validate(_migrate_stored_config(path, tree)).write(path)
    return True


def _migrate_stored_config(path: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return migrate_config(tree)
    except (ValidationError, KeyError) as error:
        reason = one_line(error)
        raise RunError(f"{path}: its configuration cannot be converted: {reason}") from error


def _migrate_history(path: Path) -> bool:
    header, newline, rows = storage.read_text(path).partition("\n")
    columns = header.split(",")
    renamed = [_HISTORY_FIELDS.get(column, column) for column in columns]
    if renamed == columns:
        return False
    storage.write_text(path, ",".join(renamed) + newline + rows)
    return True


def _migrate_model_info(path: Path) -> bool:
    info = _read_json(path)
    if info["format_version"] >= _FORMAT_VERSION:
        return False
    _write_json(path, {**_rename_fields(info, _MODEL_FIELDS), "format_version": _FORMAT_VERSION})
    return True


def _migrate_export_info(path: Path) -> bool:
    info = _read_json(path)
    if info["format_version"] >= _FORMAT_VERSION:
        return False
    exports = [_rename_fields(export, _EXPORT_FIELDS) for export in info["exports"]]
    for export in exports:
        if export.get("agreement"):
            export["agreement"] = _rename_fields(export["agreement"], _AGREEMENT_FIELDS)
    _write_json(path, {**info, "format_version": _FORMAT_VERSION, "exports": exports})
    return True


def _migrate_checkpoint(path: Path) -> bool:
    """Rewrite the notes of a checkpoint; its arrays are copied byte by byte."""
    content = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(storage.read_bytes(path))) as old:
            raw_notes = np.lib.format.read_array(io.BytesIO(old.read(_CHECKPOINT_NOTES)))
            notes = json.loads(raw_notes.tobytes())
            if notes["format_version"] >= _FORMAT_VERSION:
                return False
            encoded = json.dumps(_migrate_notes(path, notes)).encode()
            with zipfile.ZipFile(content, "w") as new:
                for entry in old.infolist():
                    if entry.filename == _CHECKPOINT_NOTES:
                        new.writestr(entry.filename, _encode_array(encoded))
                    else:
                        array = old.read(entry)
                        group, separator, number = entry.filename.partition("/")
                        entry.filename = _CHECKPOINT_GROUPS.get(group, group) + separator + number
                        new.writestr(entry, array)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        reason = one_line(error)
        raise RunError(f"{path}: is not a valid checkpoint: {reason}") from error
    with storage.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return True


def _migrate_notes(path: Path, notes: Mapping[str, Any]) -> dict[str, Any]:
    dataset = dict(notes["dataset"])
    labels = dict(dataset["labels"])
    if "form" in labels:
        labels["target"] = RENAMED_VALUES["labels.form"][labels.pop("form")]
    # The dataset has to be written again, with a column of another name and so other file sizes.
    files = [[split, rows, None] for split, rows, _ in dataset["files"]]
    best = notes["best"]
    return {
        **_rename_fields(notes, _HISTORY_FIELDS),
        "format_version": _FORMAT_VERSION,
        "config": _migrate_stored_config(path, notes["config"]),
        "dataset": {**dataset, "labels": labels, "files": files},
        "rounds": [_rename_fields(row, _HISTORY_FIELDS) for row in notes["rounds"]],
        "best": best and _migrate_best_round(best),
    }


def _migrate_best_round(best: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "metric": best["value"],
        "round": _rename_fields(best["made"], _HISTORY_FIELDS),
        "confusion": best["confusion"],
    }


def _encode_array(text: bytes) -> bytes:
    """Return a text as NumPy's `.npy` file of bytes."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.frombuffer(text, np.uint8))
    return content.getvalue()


def _rename_fields(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): member for name, member in fields.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(storage.read_text(path))
    except ValueError as error:
        raise RunError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("format_version"), int):
        raise RunError(f"{path}: has no format_version; it was not written by fer_pipeline")
    return document


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_text(path, text + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the runs that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="migrate-run",
        description="Convert trained runs of an older version of fer_pipeline, in place.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folder of a run, finished or not, or of an export"
    )
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        try:
            converted = migrate_run(parse_path(run))
        except FerError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return error.exit_code
        print("\n".join(f"converted {path}" for path in converted) or f"{run}: nothing to convert")
    return 0


if __name__ == "__main__":
    sys.exit(main())
