"""Choice of the backend that runs a model: Keras or LiteRT.

The Spark driver chooses the backend, so that all workers use the same one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from fer_pipeline.errors import FerError, RunError
from fer_pipeline.extras import is_installed, require_package, suggest_install
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference.export_manifest import LITERT, LITERT_INT8, ExportedModel
from fer_pipeline.learning.inference.litert_exports import (
    read_litert_file,
    require_litert_exports,
    warn_if_not_equivalent,
)
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
            cannot be used, for example because it is damaged, `auto` selects Keras. If TensorFlow
            is not installed, `auto` selects the fastest LiteRT export that is about as accurate as
            the model, whatever its speed is.

    Returns:
        The backend, with the content of the model file that it runs.

    Raises:
        MissingPackageError: The preference is `keras`, and TensorFlow is not installed.
        RunError: The preference is `litert`, or TensorFlow is not installed, and the model has no
            suitable LiteRT export, or the export is damaged or belongs to a different model.
        StorageError: In the same cases, `export.json` cannot be read.
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
        MissingPackageError: The preference is `keras`, and TensorFlow is not installed.
        RunError: The preference is `litert`, or TensorFlow is not installed, and the model has no
            suitable LiteRT export, or the export is damaged or belongs to a different model.
        StorageError: In the same cases, `export.json` cannot be read.
    """
    if preference == "keras":
        require_package("tensorflow")
        return _make_keras_backend(model, content, "as configured")
    can_run_keras = is_installed("tensorflow")
    try:
        exports = require_litert_exports(model)
        if preference == "litert":
            export = exports.get(LITERT_INT8) or exports[LITERT]
            warn_if_not_equivalent(export)
            return _load_litert_backend(model, export, "as configured")
        if not can_run_keras:
            export = _choose_export_without_keras(model, exports)
            return _load_litert_backend(model, export, "TensorFlow is not installed")
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
        if preference == "litert" or not can_run_keras:
            raise
        return _make_keras_backend(model, content, str(error))


def _choose_export_without_keras(
    model: TrainedModel, exports: dict[str, ExportedModel]
) -> ExportedModel:
    """Return the fastest of the equivalent LiteRT exports, even if it is slower than Keras.

    Args:
        model: The model.
        exports: LiteRT exports of the model, by name of the format.

    Raises:
        RunError: No export is equivalent to the model.
    """
    candidates = [export for export in exports.values() if export.is_equivalent]
    if not candidates:
        (export,) = exports.values()
        raise RunError(
            f"{model.export_folder}: its only LiteRT export, {export.format}, is not equivalent to"
            f" the model: {export.mismatch_reason}; choose --backend litert to run it nevertheless,"
            f" or install TensorFlow: {suggest_install('tensorflow')}"
        )
    # Without measured speeds, the export in float32.
    return max(candidates, key=lambda export: (_get_relative_speed(export), not export.agreement))


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
    content = read_litert_file(model, export)
    if export.agreement:
        reason = f"{reason}; {export.agreement.describe()}"
    sha256 = export.sha256[export.path]
    return InferenceBackend("litert", export.format, reason, content, sha256)
