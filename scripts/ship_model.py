"""Copy a finished training run, its export and its evaluation into the package as default model.

    .venv/bin/python scripts/ship_model.py run RUN
    # Export and evaluate the copied model, then:
    .venv/bin/python scripts/ship_model.py export EXPORT
    .venv/bin/python scripts/ship_model.py report EVALUATION

The kernels are rounded to float16 but stored as float32. They need no conversion, and they compress
to half the size. The model computes in float32 on all machines, because the probabilities in
bfloat16 depend on the processor. Local paths are removed from the copied files.
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

TARGET_FOLDER = trained_model.PRETRAINED_FOLDER / DEFAULT_MODEL

# Only plots without images, because the licence of FER2013 does not allow the redistribution of its
# images.
PLOTS = (
    EvaluationFile.CONFUSION_MATRIX,
    EvaluationFile.CLASS_BARS,
    EvaluationFile.RELIABILITY,
    EvaluationFile.COVERAGE,
)


def ship_run(folder: Path) -> None:
    """Copy the model of a training run into the package, with rounded kernels.

    An export of the previous model is deleted.

    Args:
        folder: Folder of the finished run.
    """
    run = TrainedModel.open(folder)
    model = formats.convert_to_float32(run.load_network())
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight).astype(np.float16).astype(np.float32))
    # The model card in the folder is kept.
    storage.remove_folder(TARGET_FOLDER / EXPORT_FOLDER)
    TARGET_FOLDER.mkdir(parents=True, exist_ok=True)
    serving_model.save_model(model, TARGET_FOLDER / RunFile.MODEL)
    for name in (RunFile.HISTORY, RunFile.ACCURACY_PLOT, RunFile.LOSS_PLOT, CONFIG_FILE):
        shutil.copyfile(folder / name, TARGET_FOLDER / name)
    sha256 = trained_model.compute_sha256(TARGET_FOLDER / RunFile.MODEL)
    model_info = run.info.model_copy(update={"sha256": sha256})
    storage.write_text(
        TARGET_FOLDER / RunFile.MODEL_INFO, model_info.model_dump_json(indent=2) + "\n"
    )


def ship_export(folder: Path) -> None:
    """Copy the LiteRT files of an export and their description.

    Args:
        folder: Folder of an export of the model in the package.
    """
    manifest = export_manifest.read_export_manifest(folder)
    _require_bundled_model(folder, manifest.model["sha256"])
    target_folder = TARGET_FOLDER / EXPORT_FOLDER
    storage.remove_folder(target_folder)
    target_folder.mkdir()
    for exported in manifest.exports:
        shutil.copyfile(folder / exported.path, target_folder / exported.path)
    document = json.loads(storage.read_text(folder / ExportFile.EXPORT_INFO))
    _write_without_paths(target_folder / ExportFile.EXPORT_INFO, document)
    shutil.copyfile(folder / CONFIG_FILE, target_folder / CONFIG_FILE)


def ship_report(folder: Path) -> None:
    """Copy the metrics of an evaluation and their plots.

    Args:
        folder: Folder of an evaluation of the model in the package.
    """
    document = json.loads(storage.read_text(folder / EvaluationFile.METRICS))
    _require_bundled_model(folder, document["model"]["sha256"])
    _write_without_paths(TARGET_FOLDER / EvaluationFile.METRICS, document)
    for name in PLOTS:
        shutil.copyfile(folder / name, TARGET_FOLDER / name)


def _require_bundled_model(folder: Path, sha256: str) -> None:
    """Exit with an error unless a checksum is that of the model in the package.

    Args:
        folder: Folder of the export or evaluation, for the error message.
        sha256: SHA-256 of the exported or evaluated model.
    """
    if sha256 != trained_model.read_model_info(TARGET_FOLDER).sha256:
        sys.exit(f"error: {folder}: belongs to a different model than {TARGET_FOLDER}")


def _write_without_paths(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document without the paths of the model and of the datasets.

    Args:
        path: File to write.
        document: Description of an export or an evaluation; it is modified.
    """
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
    print(f"wrote {TARGET_FOLDER}")
