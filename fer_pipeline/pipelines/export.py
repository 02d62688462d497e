"""Export of a trained model to formats of other programs, each verified before it is published."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from fer_pipeline.config import Config
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import EXPORT, EXPORT_FILES, EXPORT_FOLDER, ExportFile
from fer_pipeline.io.paths import is_local, parse_path
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.export.verify import ReferenceModel, benchmark_exports
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.export_manifest import (
    LITERT_INT8,
    ExportedModel,
    ExportManifest,
)
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.text import format_table

_PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "ai-edge-litert",
)


def list_default_formats(dataset: str | Path | None) -> list[str]:
    """Return the formats to export by default: all, and `litert_int8` only with a dataset."""
    return [name for name in EXPORT_FILES if name != LITERT_INT8 or dataset is not None]


def resolve_export_path(model: str | Path, output: str | Path | None) -> Path:
    """Return the folder of an export: the one that is given, or else `export` in the run's folder.

    Raises:
        StorageError: No folder is given and the model is a bundled one, whose folder is read-only.
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
    """Export the model of a finished run.

    Each format is written to a scratch folder, loaded from there and compared with the model before
    any file of the output is touched. `export.json` is written last; in an overwrite it is deleted
    first. A folder that has it holds a whole export of one model.

    Args:
        model: Folder of a finished run, or name of a bundled model.
        output: Folder of the export; see `resolve_export_path`.
        format_names: Keys of `output_kinds.EXPORT_FILES`.
        config: Configuration, of which `seed` matters.
        dataset: Folder of a dataset, for `litert_int8`: its images calibrate the range of each
            layer's output, and measure the loss of accuracy.
        overwrite: Whether an existing export may be replaced.

    Raises:
        RunError: The model's folder is no finished run, an exported model differs too much or
            cannot be written, or a dataset is given that no format needs.
        DatasetError: The folder is no dataset, is damaged, or does not fit the model.
        StorageError: There is an export already, or the folder holds foreign files.
    """
    output_folder = OutputFolder(resolve_export_path(model, output), EXPORT, overwrite=overwrite)
    _check_dataset_is_needed(model, format_names, dataset)
    output_folder.ensure_writable()
    trained = TrainedModel.open(model)
    network = trained.load_network()
    reference = ReferenceModel.build(trained, network, dataset, config.seed)
    probabilities = formats.predict_on_cpu(network, reference.images)
    with TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        exports = [
            reference.write_and_compare(name, scratch) for name in dict.fromkeys(format_names)
        ]
        exports = benchmark_exports(exports, trained, scratch)
        manifest = _make_manifest(
            trained,
            reference,
            exports,
            precision=summarize_network(network).precision,
            rounding=formats.compute_largest_difference(
                probabilities, reference.expected_probabilities
            ),
        )
        _publish(manifest, scratch, output_folder, config)
    return manifest


def _check_dataset_is_needed(
    model: str | Path, format_names: Sequence[str], dataset: str | Path | None
) -> None:
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


def _make_manifest(
    model: TrainedModel,
    reference: ReferenceModel,
    exports: list[ExportedModel],
    *,
    precision: str,
    rounding: float,
) -> ExportManifest:
    info = model.info
    return ExportManifest(
        model={
            "path": str(model.folder.resolve()),
            "sha256": info.sha256,
            "dataset_checksum": info.dataset_checksum,
        },
        classes=info.classes,
        size=info.size,
        normalization=asdict(info.normalization),
        enhancement=info.enhancement.model_dump(mode="json"),
        signature=formats.describe_signature(info.size, len(info.classes)),
        precision=precision,
        rounding=rounding,
        images=len(reference.images),
        exports=exports,
        versions=versions.collect_package_versions(*_PACKAGES),
    )


def _publish(
    manifest: ExportManifest, scratch: Path, output_folder: OutputFolder, config: Config
) -> None:
    with output_folder.lock_for_writing():
        output_folder.delete_commit_file()
        for name in EXPORT_FILES.values():
            _delete(output_folder.path / name)
        for exported in manifest.exports:
            _copy(scratch / exported.path, output_folder.path / exported.path)
        output_folder.commit(manifest.model_dump_json(indent=2) + "\n", config.write)


def _delete(path: Path) -> None:
    """Delete a file or a folder if it exists."""
    if path.is_dir():
        storage.remove_folder(path)
    else:
        storage.remove(path)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder.

    Raises:
        StorageError: The target cannot be written.
    """
    if source.is_file():
        storage.copy(source, target)
        return
    if not is_local(target):
        for file in (path for path in source.rglob("*") if path.is_file()):
            storage.copy(file, target / str(file.relative_to(source)))
        return
    try:
        shutil.copytree(source, target)
    except OSError as error:
        # copytree collects the errors of all files in one list.
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error


def format_report(manifest: ExportManifest, folder: Path) -> str:
    """Return the job's text for the terminal: files, sizes, differences and speeds."""
    lines = [
        _format_exports(manifest.exports, folder),
        f"(difference: the largest of two probabilities on {manifest.images} images, its own and"
        " those of the run's model in float32)",
        "(speed: images a second on one core, in units of the run's model in Keras)",
    ]
    for report in (exported.agreement for exported in manifest.exports if exported.agreement):
        lines.append(
            f"in 8-bit integers, on {report.images:,} images of the {report.split} split:"
            f" accuracy {float(report.accuracy):.2%}, in float32"
            f" {float(report.float_accuracy):.2%}, the same emotion for"
            f" {float(report.agreement):.2%}"
        )
        if report.mismatch_reason:
            lines.append(f"score takes it only with --backend litert: {report.mismatch_reason}")
    if manifest.rounding:
        lines.append(
            f"the run itself computes in {manifest.precision}: its probabilities differ from those"
            f" in float32 by up to {manifest.rounding:.1e}"
        )
    return "\n".join([*lines, "", f"export {folder / ExportFile.EXPORT_INFO}"])


def _format_exports(exports: Sequence[ExportedModel], folder: Path) -> str:
    rows = [
        [
            exported.format,
            str(folder / exported.path),
            f"{exported.bytes:,}",
            *_difference_cells(exported),
            f"{exported.relative_speed:.2f}",
        ]
        for exported in exports
    ]
    header = ["", "", "bytes", "difference", "allowed", "speed"]
    return format_table(rows, header, ["left"] * 2 + ["right"] * 4)


def _difference_cells(exported: ExportedModel) -> list[str]:
    if exported.largest_difference is None:
        return ["", ""]
    return [f"{exported.largest_difference:.1e}", f"{exported.tolerance:g}"]
