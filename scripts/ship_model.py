"""Puts a finished run into the package, as the model that comes with it.

    .venv/bin/python scripts/ship_model.py run RUN        # then export it, and evaluate it
    .venv/bin/python scripts/ship_model.py export EXPORT  # its LiteRT forms
    .venv/bin/python scripts/ship_model.py report REPORT  # its evaluation

Its kernels are rounded to float16, which halves what is downloaded: they stay float32 numbers, so
that nothing has to be converted back, but compress to half. It computes in float32, wherever it
runs: bfloat16 would give other answers on other processors. No path of a machine is passed on.
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
# Pictures of numbers alone: FER2013's images are not ours to pass on.
PICTURES = (
    EvaluationFile.CONFUSION_MATRIX,
    EvaluationFile.CLASS_BARS,
    EvaluationFile.RELIABILITY,
    EvaluationFile.COVERAGE,
)


def ship_run(run: Path) -> None:
    """Writes the model into the package; its exports have to be made again."""
    trained = TrainedModel.open(run)
    info, model = trained.info, formats.convert_to_float32(trained.load_network())
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight).astype(np.float16).astype(np.float32))
    # The model card beside it stays.
    storage.remove_folder(FOLDER / EXPORT_FOLDER)
    FOLDER.mkdir(parents=True, exist_ok=True)
    serving_model.save_model(model, FOLDER / RunFile.MODEL)
    for name in (RunFile.HISTORY, RunFile.ACCURACY_PLOT, RunFile.LOSS_PLOT, CONFIG_FILE):
        shutil.copyfile(run / name, FOLDER / name)
    shipped = info.model_copy(update={"sha256": trained_model.file_sha256(FOLDER / RunFile.MODEL)})
    storage.write_text(FOLDER / RunFile.MODEL_INFO, shipped.model_dump_json(indent=2) + "\n")


def ship_export(export: Path) -> None:
    """Copies its LiteRT forms, and what is known of them."""
    made = export_manifest.read_export_manifest(export)
    _require_ours(export, made.model["sha256"])
    folder = FOLDER / EXPORT_FOLDER
    storage.remove_folder(folder)
    folder.mkdir()
    for form in made.exports:
        shutil.copyfile(export / form.path, folder / form.path)
    mark = ExportFile.EXPORT_INFO
    _write_without_paths(folder / mark, json.loads(storage.read_text(export / mark)))
    shutil.copyfile(export / CONFIG_FILE, folder / CONFIG_FILE)


def ship_report(report: Path) -> None:
    """Copies the numbers of its evaluation."""
    mark = EvaluationFile.METRICS
    said = json.loads(storage.read_text(report / mark))
    _require_ours(report, said["model"]["sha256"])
    _write_without_paths(FOLDER / mark, said)
    for name in PICTURES:
        shutil.copyfile(report / name, FOLDER / name)


def _require_ours(folder: Path, sha256: str) -> None:
    if sha256 != trained_model.read_model_info(FOLDER).sha256:
        sys.exit(f"{folder}: is of another model")


def _write_without_paths(path: Path, said: dict[str, Any]) -> None:
    parts = [said["model"], said.get("dataset")]
    parts += [one["agreement"] and one["agreement"]["dataset"] for one in said.get("exports", [])]
    for part in filter(None, parts):
        del part["path"]
    storage.write_text(path, json.dumps(said, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    ship = {"run": ship_run, "export": ship_export, "report": ship_report}
    ship[sys.argv[1]](Path(sys.argv[2]))
    print(f"wrote {FOLDER}")
