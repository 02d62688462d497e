"""Export of a trained model to files, after all checks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage, versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import EXPORT_FILES
from fer_pipeline.io.paths import is_local
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.export import formats
from fer_pipeline.learning.export.verify import ReferenceModel, benchmark_exports
from fer_pipeline.learning.inference.export_manifest import ExportedModel, ExportManifest
from fer_pipeline.learning.inference.trained_model import TrainedModel

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "ai-edge-litert",
)


def export_model(
    model: TrainedModel,
    dataset: StoredDataset | None,
    format_names: Sequence[str],
    config: Config,
    output_folder: OutputFolder,
) -> ExportManifest:
    """Export a model to one or more formats, and verify each exported model; see `export.export`.

    Args:
        model: Trained model.
        dataset: Dataset for `litert_int8`, which fits the model; None for other formats.
        format_names: Names of the formats.
        config: Configuration; only `seed` and `loader.reader` are used.
        output_folder: Folder of the export.

    Raises:
        RunError: The model cannot be loaded, or an exported model cannot be written or differs too
            much from the original.
        DatasetError: The dataset is damaged or too small.
        StorageError: The folder cannot be written.
    """
    network = model.load_network()
    reference = ReferenceModel.build(model, network, dataset, config)
    probabilities = formats.predict_on_cpu(network, reference.images)
    with TemporaryDirectory() as temporary:
        scratch_folder = Path(temporary)
        exports = [
            reference.write_and_compare(name, scratch_folder)
            for name in dict.fromkeys(format_names)
        ]
        exports = benchmark_exports(exports, model, scratch_folder)
        manifest = _make_export_manifest(
            model,
            reference,
            exports,
            precision=summarize_network(network).precision,
            rounding=formats.compute_largest_difference(
                probabilities, reference.expected_probabilities
            ),
        )
        _publish_export(manifest, scratch_folder, output_folder, config)
    return manifest


def _make_export_manifest(
    model: TrainedModel,
    reference: ReferenceModel,
    exports: list[ExportedModel],
    *,
    precision: str,
    rounding: float,
) -> ExportManifest:
    """Return the content of `export.json`.

    Args:
        model: Trained model that was exported.
        reference: Original model in float32, with which the exports were compared.
        exports: Exported models.
        precision: Precision in which the network of the run computes.
        rounding: Largest difference between the probabilities of the run's network and of the
            reference, which is caused by `precision`.
    """
    model_info = model.info
    return ExportManifest(
        model={
            "path": str(model.folder.resolve()),
            "sha256": model_info.sha256,
            "dataset_checksum": model_info.dataset_checksum,
        },
        classes=model_info.classes,
        size=model_info.size,
        normalization=asdict(model_info.normalization),
        enhancement=model_info.enhancement.model_dump(mode="json"),
        signature=formats.describe_signature(model_info.size, len(model_info.classes)),
        precision=precision,
        rounding=rounding,
        images=len(reference.images),
        exports=exports,
        versions=versions.collect_package_versions(*_PACKAGES),
    )


def _publish_export(
    manifest: ExportManifest, scratch_folder: Path, output_folder: OutputFolder, config: Config
) -> None:
    """Replace the models in the output folder by those in the scratch folder.

    The old `export.json` is deleted first, and the new one is written last.

    Args:
        manifest: Description of the export, which is the content of `export.json`.
        scratch_folder: Folder with the verified models.
        output_folder: Folder of the export.
        config: Configuration, which is written to the output folder too.
    """
    with output_folder.lock_for_writing():
        output_folder.invalidate_old_output()
        for name in EXPORT_FILES.values():
            _delete_path(output_folder.path / name)
        for exported in manifest.exports:
            _copy_path(scratch_folder / exported.path, output_folder.path / exported.path)
        output_folder.commit(manifest.model_dump_json(indent=2) + "\n", config.write)


def _delete_path(path: Path) -> None:
    """Delete a file or a folder if it exists."""
    if path.is_dir():
        storage.remove_folder(path)
    else:
        storage.remove(path)


def _copy_path(source: Path, target: Path) -> None:
    """Copy a local file or folder to a path on any filesystem.

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
        # copytree raises one error with a list of the errors of all files, and no strerror.
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error
