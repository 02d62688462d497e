"""Export of a trained model as a SavedModel and as LiteRT files, each of which is verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import EXPORT, EXPORT_FILES, EXPORT_FOLDER, ExportFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import dataset_checks, trained_model
from fer_pipeline.learning.inference.export_manifest import (
    LITERT_INT8,
    ExportedModel,
    ExportManifest,
)
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.text import format_table


def list_default_formats(dataset: str | Path | None) -> list[str]:
    """Return the formats to export by default: all formats, but `litert_int8` only with a dataset.

    The quantization of `litert_int8` is calibrated on images of the dataset.

    Args:
        dataset: Folder of a dataset, or None.
    """
    return [name for name in EXPORT_FILES if name != LITERT_INT8 or dataset is not None]


def resolve_export_path(model: str | Path, output: str | Path | None) -> Path:
    """Return the folder for an export; by default the subfolder `export` of the run's folder.

    Args:
        model: Folder of a finished run, or name of a bundled model.
        output: Folder that the user specified, or None.

    Raises:
        StorageError: No folder is given, and the model is a bundled model, which must not change.
    """
    if output is not None:
        return parse_path(output)
    run = trained_model.resolve_model_path(model)
    if trained_model.is_bundled(run):
        raise StorageError(
            f"{model}: is a bundled model; choose a folder of your own with --output"
        )
    return run / EXPORT_FOLDER


def export(
    model: str | Path,
    output: str | Path | None,
    format_names: Sequence[str],
    config: Config,
    *,
    dataset: str | Path | None = None,
    overwrite: bool = False,
) -> ExportManifest:
    """Export the model of a finished run to one or more formats, and verify each exported model.

    The output folder is changed only after all exported models have been verified. A folder with
    `export.json` always holds one complete export.

    Args:
        model: Folder of a finished run, or name of a bundled model.
        output: Folder for the export; None is the subfolder `export` of the run's folder.
        format_names: Names of the formats, which are keys of `output_kinds.EXPORT_FILES`.
        config: Configuration; only `seed` and `loader.reader` are used.
        dataset: Folder of a dataset for `litert_int8`; None for other formats. Its images are used
            to calibrate the quantization, and to measure the loss of accuracy.
        overwrite: Whether an existing export may be replaced.

    Returns:
        Description of the export, which is the content of `export.json`.

    Raises:
        RunError: The model's folder is not a finished run, an exported model cannot be written or
            differs too much from the original, or a dataset is missing or unnecessary.
        DatasetError: The dataset's folder is not a dataset, is damaged, or does not fit the model.
        StorageError: The output folder holds an export that may not be replaced, or other files;
            it cannot be written; or `output` is None for a bundled model.
    """
    output_folder = OutputFolder(resolve_export_path(model, output), EXPORT, overwrite=overwrite)
    _check_dataset_argument(model, format_names, dataset)
    output_folder.ensure_writable()
    trained = TrainedModel.open(model)
    stored_dataset = None
    if dataset is not None:
        stored_dataset = StoredDataset.open(dataset)
        dataset_checks.require_compatible_dataset(trained, stored_dataset)
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.pipelines import run_export

    return run_export.export_model(trained, stored_dataset, format_names, config, output_folder)


def _check_dataset_argument(
    model: str | Path, format_names: Sequence[str], dataset: str | Path | None
) -> None:
    """Check that a dataset is given if a format needs one, and only then.

    Args:
        model: Folder of a finished run, or name of a bundled model; for the error message.
        format_names: Names of the formats to export.
        dataset: Folder of the dataset, or None.

    Raises:
        RunError: A dataset is missing or unnecessary.
    """
    if LITERT_INT8 in format_names and dataset is None:
        raise RunError(
            f"{trained_model.resolve_model_path(model)}: {LITERT_INT8} is calibrated on images;"
            " --dataset names the folder of a preprocess job"
        )
    if LITERT_INT8 not in format_names and dataset is not None:
        raise RunError(
            f"{dataset}: no chosen format needs a dataset; add --format {LITERT_INT8}, or leave"
            " --dataset out"
        )


def format_report(manifest: ExportManifest, folder: Path) -> str:
    """Return the report of the job: a table of the exported models, and notes on their accuracy.

    The table compares the probabilities of each exported model with those of the run's model. For a
    quantized model, a note compares the predicted classes and the accuracies instead.

    Args:
        manifest: Description of the export.
        folder: Folder of the export.
    """
    lines = [
        _format_exports(manifest.exports, folder),
        "(difference: largest difference of a probability from the run's model in float32, on"
        f" {manifest.images} images)",
        "(speed: images per second on one core, relative to the run's model in Keras)",
    ]
    for report in (exported.agreement for exported in manifest.exports if exported.agreement):
        lines.append(
            f"in 8-bit integers, on {report.images:,} images of the {report.split} split:"
            f" accuracy {float(report.quantized_accuracy):.2%}, in float32"
            f" {float(report.float32_accuracy):.2%}, the same emotion for"
            f" {float(report.agreement):.2%}"
        )
        if report.mismatch_reason:
            lines.append(f"score uses it only with --backend litert: {report.mismatch_reason}")
    if manifest.rounding:
        lines.append(
            f"the run itself computes in {manifest.precision}: its probabilities differ from those"
            f" in float32 by up to {manifest.rounding:.1e}"
        )
    return "\n".join([*lines, "", f"export {folder / ExportFile.EXPORT_INFO}"])


def _format_exports(exports: Sequence[ExportedModel], folder: Path) -> str:
    """Return a table that compares the exported models with the original model.

    The columns are the format, the path, the size in bytes, the largest difference from the
    original model's probabilities, the largest allowed difference, and the speed relative to the
    original model.
    """
    rows = [
        [
            exported.format,
            str(folder / exported.path),
            f"{exported.bytes:,}",
            *_format_difference_cells(exported),
            f"{exported.relative_speed:.2f}",
        ]
        for exported in exports
    ]
    header = ["", "", "bytes", "difference", "allowed", "speed"]
    return format_table(rows, header, ["left"] * 2 + ["right"] * 4)


def _format_difference_cells(exported: ExportedModel) -> list[str]:
    """Return two table cells: the largest difference from the original model, and the allowed one.

    Both are differences of probabilities. For a quantized model, both cells are empty, because its
    predicted classes are compared instead.
    """
    if exported.largest_difference is None:
        return ["", ""]
    return [f"{exported.largest_difference:.1e}", f"{exported.tolerance:g}"]
