"""What scores, Keras or LiteRT: decided on the driver, so that all workers do the same."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fer_pipeline import storage
from fer_pipeline.errors import FerError, RunError, StorageError
from fer_pipeline.learning.model import exports, run_folder
from fer_pipeline.learning.model.exports import FLOAT, INT8, Exported
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.publication import EXPORT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runtime:
    """What scores.

    Attributes:
        name: Its name.
        format: Which of the model's forms it runs.
        reason: Why.
        content: The content of the model's file.
        sha256: Of this file.
    """

    name: Literal["keras", "litert"]
    format: str
    reason: str
    content: bytes
    sha256: str

    def said(self) -> dict[str, Any]:
        """What the scores say of it."""
        return {
            "name": self.name,
            "format": self.format,
            "reason": self.reason,
            "sha256": self.sha256,
        }


def choose(
    run: Path, info: RunInfo, content: bytes, wanted: Literal["auto", "keras", "litert"]
) -> Runtime:
    """Chooses what scores, by what the model's export says of itself and nothing else.

    Args:
        run: The run's folder; its export is in its folder `export`.
        info: What it says of its model.
        content: The content of its `model.keras`.
        wanted: `keras`: that. `litert`: the form in 8-bit integers, whatever that costs, else the
            one in float32. `auto`: the fastest of both that is faster than Keras at equal answers,
            else Keras.

    Raises:
        RunError: LiteRT is wanted, and there is no export of this model, or a damaged one.
    """
    made = _chosen(run, info, content, wanted)
    log.info("scoring with %s (%s): %s", made.name, made.format, made.reason)
    return made


def _chosen(run: Path, info: RunInfo, content: bytes, wanted: str) -> Runtime:
    if wanted == "keras":
        return _keras(info, content, "as configured")
    try:
        forms = _forms(run, info)
        if wanted == "litert":
            return _as_configured(run, forms.get(INT8) or forms[FLOAT])
        better = [form for form in forms.values() if form.equal and _speed(form) > 1]
        if not better:
            return _keras(info, content, _none_is_better(forms))
        best = max(better, key=_speed)
        reason = f"{_speed(best):.2f} times as fast as keras when it was exported"
        return _litert(run, best, reason)
    except FerError as error:
        if wanted == "litert":
            raise
        return _keras(info, content, str(error))


def _as_configured(run: Path, form: Exported) -> Runtime:
    if not form.equal:
        log.warning("%s does not answer as the model does: %s", form.format, form.unequal)
    return _litert(run, form, "as configured")


def _none_is_better(forms: dict[str, Exported]) -> str:
    reason = "no form of its export is faster at equal answers"
    unequal = [f"{one.format}: {one.unequal}" for one in forms.values() if not one.equal]
    return "; ".join([reason, *unequal])


def _keras(info: RunInfo, content: bytes, reason: str) -> Runtime:
    return Runtime("keras", run_folder.MODEL, reason, content, info.sha256)


def _speed(form: Exported) -> float:
    return form.relative_speed or 0.0


def _forms(run: Path, info: RunInfo) -> dict[str, Exported]:
    """The forms of a run's export that LiteRT runs, one at least.

    Raises:
        RunError: There are none, or they are of another model.
        StorageError: What the export says cannot be read.
    """
    folder = run / run_folder.EXPORTS
    if not storage.is_file(folder / EXPORT.mark):
        raise RunError(f"{run}: has no export; {_remedy(run, 'make one')}")
    made = exports.read(folder)
    if made.model.get("sha256") != info.sha256:
        raise RunError(
            f"{folder}: is of another model than {run / run_folder.MODEL};"
            f" {_remedy(run, 'make it anew', '--overwrite')}"
        )
    found = {one.format: one for one in made.exports if one.format in (FLOAT, INT8)}
    if not found:
        raise RunError(f"{folder}: has no LiteRT form; {_remedy(run, 'add them', '--overwrite')}")
    return found


def _remedy(run: Path, what: str, *options: str) -> str:
    """What a user can do about an export that is not as it should be."""
    if run_folder.is_shipped(run):
        return "the installation is not whole: install the package again, or choose --backend keras"
    return " ".join([f"{what} with: export --model {run} --dataset DIR", *options])


def _litert(run: Path, chosen: Exported, reason: str) -> Runtime:
    path = run / run_folder.EXPORTS / chosen.path
    try:
        content = storage.read_bytes(path)
    except StorageError as error:
        raise RunError(f"{error}; {_remedy(run, 'make it anew', '--overwrite')}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != chosen.sha256.get(chosen.path):
        raise RunError(
            f"{path}: is not the file that {EXPORT.mark} describes;"
            f" {_remedy(run, 'make it anew', '--overwrite')}"
        )
    found = [chosen.agreement.said] if chosen.agreement else []
    return Runtime("litert", chosen.format, "; ".join([reason, *found]), content, sha256)
