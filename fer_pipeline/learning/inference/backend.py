"""Choice of the backend that runs a model: Keras or LiteRT.

The Spark driver chooses the backend, so that all workers use the same one.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, Literal

from fer_pipeline.errors import FerError, RunError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import ExportFile, RunFile
from fer_pipeline.learning.inference import export_manifest
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8, ExportedModel
from fer_pipeline.learning.inference.trained_model import TrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceBackend:
    """A backend and the model file that it runs.

    Attributes:
        name: Name of the backend.
        format: Format of the model file: `model.keras`, or the name of an export format.
        reason: Reason for the choice of this backend.
        content: Content of the model file.
        sha256: SHA-256 of the content, in hexadecimal digits.
    """

    name: Literal["keras", "litert"]
    format: str
    reason: str
    content: bytes
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes except the content of the model file, as a dictionary for JSON."""
        return {
            "name": self.name,
            "format": self.format,
            "reason": self.reason,
            "sha256": self.sha256,
        }


def choose_backend(
    model: TrainedModel, content: bytes, preference: Literal["auto", "keras", "litert"]
) -> InferenceBackend:
    """Choose the backend that runs a model, and read the model file of this backend.

    The choice and its reason are logged. No speed is measured: `auto` uses the accuracy and the
    speed in `export.json`, the description of the model's exports.

    Args:
        model: The model; its exports are in the folder `model.export_folder`.
        content: Content of the file `model.keras` of the model.
        preference: `keras` selects Keras. `litert` selects the LiteRT export in 8-bit integers,
            even if it is less accurate, or the LiteRT export in float32 if there is none in 8-bit
            integers. `auto` selects the fastest LiteRT export that is about as accurate as the
            model (`ExportedModel.is_equivalent`) and faster than Keras. If there is none, or if it
            cannot be used, for example because it is damaged, `auto` selects Keras.

    Returns:
        The backend, with the content of the model file that it runs.

    Raises:
        RunError: The preference is `litert`, and the model has no LiteRT export, or the export is
            damaged or belongs to a different model.
        StorageError: The preference is `litert`, and `export.json` cannot be read.
    """
    backend = _choose_by_preference(model, content, preference)
    log.info("using %s (%s): %s", backend.name, backend.format, backend.reason)
    return backend


def _choose_by_preference(model: TrainedModel, content: bytes, preference: str) -> InferenceBackend:
    """Choose the backend that runs a model; the caller logs the choice.

    Args:
        model: The model; its exports are in the folder `model.export_folder`.
        content: Content of the file `model.keras` of the model.
        preference: `keras`, `litert` or `auto`, as in `choose_backend`.

    Raises:
        RunError: The preference is `litert`, and the model has no LiteRT export, or the export is
            damaged or belongs to a different model.
        StorageError: The preference is `litert`, and `export.json` cannot be read.
    """
    if preference == "keras":
        return _make_keras_backend(model, content, "as configured")
    try:
        exports = _require_litert_exports(model)
        if preference == "litert":
            export = exports.get(LITERT_INT8) or exports[LITERT]
            if not export.is_equivalent:
                log.warning(
                    "%s is not equivalent to the model: %s", export.format, export.mismatch_reason
                )
            return _load_litert_backend(model, export, "as configured")
        candidates = [
            export
            for export in exports.values()
            if export.is_equivalent and _get_relative_speed(export) > 1
        ]
        if not candidates:
            return _make_keras_backend(model, content, _explain_choice_of_keras(exports))
        fastest = max(candidates, key=_get_relative_speed)
        reason = f"{_get_relative_speed(fastest):.2f} times as fast as keras when it was exported"
        return _load_litert_backend(model, fastest, reason)
    except FerError as error:
        if preference == "litert":
            raise
        return _make_keras_backend(model, content, str(error))


def _explain_choice_of_keras(exports: dict[str, ExportedModel]) -> str:
    """Return the reason why none of the LiteRT exports is used instead of Keras.

    For each export that is not accurate enough, the text says in which respect.

    Args:
        exports: LiteRT exports of the model, by name of the format.
    """
    reason = "no equivalent LiteRT export is faster"
    mismatches = [
        f"{export.format}: {export.mismatch_reason}"
        for export in exports.values()
        if not export.is_equivalent
    ]
    return "; ".join([reason, *mismatches])


def _get_relative_speed(export: ExportedModel) -> float:
    """Return the speed of an export relative to Keras; 0 if it was not measured."""
    return export.relative_speed or 0.0


def _require_litert_exports(model: TrainedModel) -> dict[str, ExportedModel]:
    """Read `export.json`, check that it belongs to the model, and return the LiteRT exports.

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


def _suggest_remedy(model: TrainedModel, action: str, *options: str) -> str:
    """Return advice for the user about a missing or damaged export.

    The advice is the command that exports the model. For a bundled model, which users cannot
    export, the advice is to reinstall the package or to choose Keras.

    Args:
        model: The model.
        action: First words of the advice, such as "replace it"; not used for a bundled model.
        *options: Further options of the export command; not used for a bundled model.
    """
    if model.is_bundled:
        return "the installation is incomplete: reinstall the package, or choose --backend keras"
    return " ".join([f"{action} with: export --model {model.folder} --dataset DIR", *options])


def _make_keras_backend(model: TrainedModel, content: bytes, reason: str) -> InferenceBackend:
    """Return the Keras backend.

    Args:
        model: The model.
        content: Content of the file `model.keras` of the model.
        reason: Reason for the choice of this backend.
    """
    return InferenceBackend("keras", RunFile.MODEL, reason, content, model.info.sha256)


def _load_litert_backend(
    model: TrainedModel, export: ExportedModel, reason: str
) -> InferenceBackend:
    """Read the file of a LiteRT export and return the backend that runs it.

    Args:
        model: The model.
        export: Description of the LiteRT export of the model.
        reason: Reason for the choice of this backend. If the export is quantized, its agreement
            with the float32 model and its change of accuracy are appended.

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
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != export.sha256.get(export.path):
        raise RunError(f"{path}: is not the file that {ExportFile.EXPORT_INFO} describes; {remedy}")
    if export.agreement:
        reason = f"{reason}; {export.agreement.describe()}"
    return InferenceBackend("litert", export.format, reason, content, sha256)
