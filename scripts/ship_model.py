"""Copy a finished run into the package, as its default model.

    .venv/bin/python scripts/ship_model.py run RUN        # then export it, and evaluate it
    .venv/bin/python scripts/ship_model.py export EXPORT  # its LiteRT files
    .venv/bin/python scripts/ship_model.py report REPORT  # its evaluation

The kernels are rounded to float16, which halves the download: they stay float32 numbers, which need
no conversion, but compress to half the size. The model computes in float32 on every machine, since
bfloat16 would give other probabilities on other processors. Paths of this machine are removed.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import (
    CONFIG_FILE,
    DEFAULT_MODEL,
    EXPORT_FOLDER,
    EvaluationFile,
    ExportFile,
    RunFile,
)
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.inference import export_manifest, serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel

FOLDER = trained_model.PRETRAINED_FOLDER / DEFAULT_MODEL

# Plots of numbers alone: the licence of FER2013's images does not allow passing them on.
PLOTS = (
    EvaluationFile.CONFUSION_MATRIX,
    EvaluationFile.CLASS_BARS,
    EvaluationFile.RELIABILITY,
    EvaluationFile.COVERAGE,
)


def ship_run(folder: Path) -> None:
    """Write the model of a run into the package; it has to be exported again."""
    run = TrainedModel.open(folder)
    model = formats.convert_to_float32(run.load_network())
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight).astype(np.float16).astype(np.float32))
    # The model card in the folder stays.
    storage.remove_folder(FOLDER / EXPORT_FOLDER)
    FOLDER.mkdir(parents=True, exist_ok=True)
    serving_model.save_model(model, FOLDER / RunFile.MODEL)
    for name in (RunFile.HISTORY, RunFile.ACCURACY_PLOT, RunFile.LOSS_PLOT, CONFIG_FILE):
        shutil.copyfile(folder / name, FOLDER / name)
    sha256 = trained_model.compute_sha256(FOLDER / RunFile.MODEL)
    info = run.info.model_copy(update={"sha256": sha256})
    storage.write_text(FOLDER / RunFile.MODEL_INFO, info.model_dump_json(indent=2) + "\n")


def ship_export(folder: Path) -> None:
    """Copy the LiteRT files of an export, and their description."""
    manifest = export_manifest.read_export_manifest(folder)
    _require_bundled_model(folder, manifest.model["sha256"])
    target = FOLDER / EXPORT_FOLDER
    storage.remove_folder(target)
    target.mkdir()
    for exported in manifest.exports:
        shutil.copyfile(folder / exported.path, target / exported.path)
    document = json.loads(storage.read_text(folder / ExportFile.EXPORT_INFO))
    _write_without_paths(target / ExportFile.EXPORT_INFO, document)
    shutil.copyfile(folder / CONFIG_FILE, target / CONFIG_FILE)


def ship_report(folder: Path) -> None:
    """Copy the numbers of an evaluation, and their plots."""
    document = json.loads(storage.read_text(folder / EvaluationFile.METRICS))
    _require_bundled_model(folder, document["model"]["sha256"])
    _write_without_paths(FOLDER / EvaluationFile.METRICS, document)
    for name in PLOTS:
        shutil.copyfile(folder / name, FOLDER / name)


def _require_bundled_model(folder: Path, sha256: str) -> None:
    if sha256 != trained_model.read_model_info(FOLDER).sha256:
        sys.exit(f"error: {folder}: is of another model than {FOLDER}")


def _write_without_paths(path: Path, document: dict[str, Any]) -> None:
    """Write a description without the paths of the model and of the datasets."""
    sections = [document["model"], document.get("dataset")]
    for exported in document.get("exports", []):
        if exported["agreement"]:
            sections.append(exported["agreement"]["dataset"])
    for section in filter(None, sections):
        del section["path"]
    storage.write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    commands = {"run": ship_run, "export": ship_export, "report": ship_report}
    commands[sys.argv[1]](Path(sys.argv[2]))
    print(f"wrote {FOLDER}")
