"""The LiteRT exports of a trained model: their description, their files, and what is missing.

They run without TensorFlow. The export job writes them.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.extras import is_installed, suggest_install
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import ExportFile
from fer_pipeline.learning.inference import export_manifest
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8, ExportedModel

if TYPE_CHECKING:
    from fer_pipeline.learning.inference.trained_model import TrainedModel

log = logging.getLogger(__name__)


def require_litert_exports(model: TrainedModel) -> dict[str, ExportedModel]:
    """Read `export.json`, check that it belongs to the model, and return the LiteRT exports.

    Args:
        model: The model; its exports are in the folder `model.export_folder`.

    Returns:
        Descriptions of the exports, by name of the format: `litert`, `litert_int8` or both. There
        is at least one.

    Raises:
        RunError: The model has no LiteRT export, its `export.json` is damaged, or the export
            belongs to a different model.
        StorageError: `export.json` cannot be read.
    """
    folder = model.export_folder
    if not storage.is_file(folder / ExportFile.EXPORT_INFO):
        raise RunError(f"{model.folder}: has no export; {_suggest_remedy(model, 'create one')}")
    manifest = export_manifest.read_export_manifest(folder)
    if manifest.model.get("sha256") != model.info.sha256:
        raise RunError(
            f"{folder}: is an export of a different model than {model.model_file};"
            f" {_suggest_remedy(model, 'replace it', '--overwrite')}"
        )
    exports = {
        export.format: export
        for export in manifest.exports
        if export.format in (LITERT, LITERT_INT8)
    }
    if not exports:
        raise RunError(
            f"{folder}: has no LiteRT format; {_suggest_remedy(model, 'add one', '--overwrite')}"
        )
    return exports


def warn_if_not_equivalent(export: ExportedModel) -> None:
    """Log a warning if an export is not accurate enough to replace the model."""
    if not export.is_equivalent:
        log.warning("%s is not equivalent to the model: %s", export.format, export.mismatch_reason)


def read_litert_file(model: TrainedModel, export: ExportedModel) -> bytes:
    """Read the file of a LiteRT export, verify its checksum, and return its content.

    Args:
        model: The model.
        export: Description of the LiteRT export of the model.

    Raises:
        RunError: The file is missing or cannot be read, or its checksum differs from the one in
            `export.json`.
    """
    path = model.export_folder / export.path
    remedy = _suggest_remedy(model, "replace it", "--overwrite")
    try:
        content = storage.read_bytes(path)
    except StorageError as error:
        raise RunError(f"{error}; {remedy}") from error
    if hashlib.sha256(content).hexdigest() != export.sha256.get(export.path):
        raise RunError(f"{path}: is not the file that {ExportFile.EXPORT_INFO} describes; {remedy}")
    return content


def _suggest_remedy(model: TrainedModel, action: str, *options: str) -> str:
    """Return advice for the user about a missing or damaged export.

    The advice is the command that exports the model. For a bundled model, which users cannot
    export, the advice is to reinstall the package or to choose Keras. If TensorFlow is not
    installed, the advice says that the export needs it, and how to install it.

    Args:
        model: The model.
        action: First words of the advice, such as "replace it"; not used for a bundled model.
        *options: Further options of the export command; not used for a bundled model.
    """
    has_tensorflow = is_installed("tensorflow")
    if model.is_bundled:
        alternative = "choose --backend keras" if has_tensorflow else suggest_install("tensorflow")
        return f"the installation is incomplete: reinstall the package, or {alternative}"
    command = " ".join([f"export --model {model.folder} --dataset DIR", *options])
    if has_tensorflow:
        return f"{action} with: {command}"
    return (
        f"{action} where TensorFlow is installed, with: {command}; or install TensorFlow here:"
        f" {suggest_install('tensorflow')}"
    )
