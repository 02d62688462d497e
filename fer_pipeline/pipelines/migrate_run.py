"""Conversion of training runs and exports that were written by an older version of the package.

Configuration keys, columns and fields get their current names. The model files do not change.
`scripts/migrate-run` runs this module.
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
"""Format version of the `model.json`, `export.json` and checkpoints that this module writes."""

# New names by old name.
_NEW_MODEL_FIELDS = {"best_trial": "best_restart"}
_NEW_HISTORY_FIELDS = {"trial": "restart"}
_NEW_CHECKPOINT_GROUPS = {"watched": "monitor", "measures": "metrics"}
_NEW_EXPORT_FIELDS = {"form": "format"}
_NEW_AGREEMENT_FIELDS = {
    "calibrated_on": "calibration_split",
    "same": "agreeing_images",
    "right": "correct_images",
    "float_right": "float_correct_images",
}


def migrate_run(folder: Path) -> list[Path]:
    """Convert the files of a training run or of an export to the current version, in place.

    The export in a run's folder is converted too. Each file is replaced atomically. An interrupted
    conversion can be repeated, because files that are already converted do not change again. The
    file that states the format version, `model.json` or `export.json`, is converted last.

    Args:
        folder: Folder of a finished or unfinished run, or of an export.

    Returns:
        The paths of the converted files.

    Raises:
        RunError: The folder contains neither a run nor an export, or a file in it is damaged.
        StorageError: A file cannot be read or written.
    """
    names = (RunFile.MODEL_INFO, ExportFile.EXPORT_INFO, RunFile.CHECKPOINT, *_CONFIGS)
    if not any(storage.is_file(folder / name) for name in names):
        raise RunError(f"{folder}: is neither a run nor an export; choose the folder of one")
    converters: dict[str, Callable[[Path], bool]] = {
        **dict.fromkeys(_CONFIGS, _migrate_config_file),
        **dict.fromkeys(_HISTORIES, _migrate_history),
        RunFile.CHECKPOINT: _migrate_checkpoint,
        ExportFile.EXPORT_INFO: _migrate_export_info,
        RunFile.MODEL_INFO: _migrate_model_info,
    }
    converted_paths = []
    export_folder = folder / EXPORT_FOLDER
    if storage.is_file(export_folder / ExportFile.EXPORT_INFO):
        converted_paths += migrate_run(export_folder)
    for name, convert in converters.items():
        path = folder / name
        if storage.is_file(path) and convert(path):
            converted_paths.append(path)
    return converted_paths


def migrate_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration with the current keys and values.

    Args:
        tree: Configuration as nested mappings, with keys of an older version; not modified.

    Raises:
        ValidationError: The configuration is still invalid after the conversion.
        KeyError: A key whose values were renamed has an unknown value.
    """
    migrated: dict[str, Any] = copy.deepcopy(dict(tree))
    schedule = (tree.get("training") or {}).get("schedule") or {}
    # Two old keys became a single key. The schedule used only one of them; skip the other one.
    unused_key = "final" if schedule.get("kind") == "plateau" else "minimum"
    for old_key, setting in list(pop_renamed_keys(migrated)):
        if old_key == f"training.schedule.{unused_key}":
            continue
        *sections, key = RENAMED_KEYS[old_key].split(".")
        branch = migrated
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = RENAMED_VALUES[old_key][setting] if old_key in RENAMED_VALUES else setting
    return Config.model_validate(migrated).to_dict()


def _migrate_config_file(path: Path) -> bool:
    """Convert a configuration file in place, and return whether it contained old keys.

    Raises:
        RunError: The configuration cannot be converted, or is still invalid after the conversion.
    """
    tree = read_yaml_mapping(path)
    if not list(pop_renamed_keys(copy.deepcopy(tree))):
        return False
    Config.model_validate(_migrate_run_config(path, tree)).write(path)
    return True


def _migrate_run_config(path: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of a run with the current keys and values.

    Args:
        path: Path of the file that contains the configuration, for error messages.
        tree: Configuration as nested mappings, with keys of an older version; not modified.

    Raises:
        RunError: The configuration cannot be converted.
    """
    try:
        return migrate_config(tree)
    except (ValidationError, KeyError) as error:
        reason = one_line(error)
        raise RunError(f"{path}: its configuration cannot be converted: {reason}") from error


def _migrate_history(path: Path) -> bool:
    """Rename the columns of a training history, a CSV file, in place.

    Returns:
        Whether any column was renamed.
    """
    header, newline, rows = storage.read_text(path).partition("\n")
    columns = header.split(",")
    new_columns = [_NEW_HISTORY_FIELDS.get(column, column) for column in columns]
    if new_columns == columns:
        return False
    storage.write_text(path, ",".join(new_columns) + newline + rows)
    return True


def _migrate_model_info(path: Path) -> bool:
    """Convert a `model.json` in place to the current field names and format version.

    Returns:
        Whether the file had an older format version; otherwise it is not changed.

    Raises:
        RunError: The file is not valid JSON, or has no format version.
    """
    document = _read_versioned_json(path)
    if document["format_version"] >= _FORMAT_VERSION:
        return False
    _write_json(
        path, {**_rename_fields(document, _NEW_MODEL_FIELDS), "format_version": _FORMAT_VERSION}
    )
    return True


def _migrate_export_info(path: Path) -> bool:
    """Convert an `export.json` in place to the current field names and format version.

    Returns:
        Whether the file had an older format version; otherwise it is not changed.

    Raises:
        RunError: The file is not valid JSON, or has no format version.
    """
    document = _read_versioned_json(path)
    if document["format_version"] >= _FORMAT_VERSION:
        return False
    exports = [_rename_fields(export, _NEW_EXPORT_FIELDS) for export in document["exports"]]
    for export in exports:
        if export.get("agreement"):
            export["agreement"] = _rename_fields(export["agreement"], _NEW_AGREEMENT_FIELDS)
    _write_json(path, {**document, "format_version": _FORMAT_VERSION, "exports": exports})
    return True


def _migrate_checkpoint(path: Path) -> bool:
    """Convert a checkpoint in place to the current names and format version.

    A checkpoint is a zip file of arrays. One array contains the notes, a JSON document that
    describes the state of the training; its fields are converted. Some of the other arrays get new
    names, but their content does not change.

    Args:
        path: Path of the checkpoint.

    Returns:
        Whether the checkpoint had an older format version; otherwise it is not changed.

    Raises:
        RunError: The file is not a valid checkpoint.
    """
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
                        new.writestr(entry.filename, _encode_as_npy(encoded))
                    else:
                        array = old.read(entry)
                        group, separator, number = entry.filename.partition("/")
                        entry.filename = (
                            _NEW_CHECKPOINT_GROUPS.get(group, group) + separator + number
                        )
                        new.writestr(entry, array)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        reason = one_line(error)
        raise RunError(f"{path}: is not a valid checkpoint: {reason}") from error
    with storage.atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return True


def _migrate_notes(path: Path, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes of a checkpoint with the current fields.

    The notes are a JSON document that describes the state of the training.

    Args:
        path: Path of the checkpoint, for error messages.
        notes: Notes with the fields of the older version; not modified.

    Raises:
        RunError: The configuration in the notes cannot be converted.
    """
    dataset = dict(notes["dataset"])
    labels = dict(dataset["labels"])
    if "form" in labels:
        labels["target"] = RENAMED_VALUES["labels.form"][labels.pop("form")]
    # The dataset must be written again with renamed columns, so the file sizes will differ.
    files = [[split, rows, None] for split, rows, _ in dataset["files"]]
    best = notes["best"]
    return {
        **_rename_fields(notes, _NEW_HISTORY_FIELDS),
        "format_version": _FORMAT_VERSION,
        "config": _migrate_run_config(path, notes["config"]),
        "dataset": {**dataset, "labels": labels, "files": files},
        "rounds": [_rename_fields(row, _NEW_HISTORY_FIELDS) for row in notes["rounds"]],
        "best": best and _migrate_best_validation(best),
    }


def _migrate_best_validation(best: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the description of the best validation to the current field names.

    Args:
        best: Metric, history entry and confusion matrix of the best validation, from the notes of
            an older checkpoint.
    """
    return {
        "metric": best["value"],
        "round": _rename_fields(best["made"], _NEW_HISTORY_FIELDS),
        "confusion": best["confusion"],
    }


def _encode_as_npy(encoded_text: bytes) -> bytes:
    """Return the content of a NumPy `.npy` file that holds the given bytes as a uint8 array."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.frombuffer(encoded_text, np.uint8))
    return content.getvalue()


def _rename_fields(fields: Mapping[str, Any], new_names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with renamed keys.

    Args:
        fields: Mapping with old keys.
        new_names: New keys by old key; all other keys do not change.
    """
    return {new_names.get(name, name): content for name, content in fields.items()}


def _read_versioned_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, and check that it has a format version.

    Raises:
        RunError: The file is not valid JSON, or has no integer `format_version`.
    """
    try:
        document = json.loads(storage.read_text(path))
    except ValueError as error:
        raise RunError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("format_version"), int):
        raise RunError(f"{path}: has no format_version; it was not written by fer_pipeline")
    return document


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a file as indented JSON; an existing file is overwritten."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_text(path, text + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the runs given on the command line.

    Args:
        argv: Arguments of the command line; `sys.argv[1:]` by default.

    Returns:
        The exit status: 0, or the exit code of the error at which the conversion stopped.
    """
    parser = argparse.ArgumentParser(
        prog="migrate-run",
        description="Convert training runs of an older version of fer_pipeline in place.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a finished or unfinished training run, or of an export",
    )
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        try:
            converted_paths = migrate_run(parse_path(run))
        except FerError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            return error.exit_code
        lines = [f"converted {path}" for path in converted_paths]
        print("\n".join(lines) or f"{run}: nothing to convert")
    return 0


if __name__ == "__main__":
    sys.exit(main())
