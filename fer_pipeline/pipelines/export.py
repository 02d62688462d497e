"""From a trained run to the forms that other programs load, each tried before it is published."""

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
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel
from fer_pipeline.text import format_table

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "ai-edge-litert")


def default_forms(dataset: str | Path | None) -> list[str]:
    """The forms that are exported where none is named: all that can be."""
    return [form for form in EXPORT_FILES if form != LITERT_INT8 or dataset is not None]


def folder_of(model: str | Path, output: str | Path | None) -> Path:
    """Where an export goes: by default into the run's own folder, where scoring finds it.

    Raises:
        StorageError: The model is one of the package, which is left as it is.
    """
    if output is not None:
        return parse_path(output)
    run = trained_model.resolve_model_path(model)
    if trained_model.is_bundled(run):
        raise StorageError(f"{model}: is a model of the package; --output names a folder of yours")
    return run / EXPORT_FOLDER


def export(
    model: str | Path,
    output: str | Path | None,
    forms: Sequence[str],
    config: Config,
    *,
    dataset: str | Path | None = None,
    overwrite: bool = False,
) -> ExportManifest:
    """Exports the model of a finished run.

    Each form is written to a scratch folder, loaded from there and compared with the model before
    anything in the output is touched. `export.json` is written last and, in an overwrite, taken
    away first: a folder that has one holds a whole export of one model.

    Args:
        model: The run's folder, or the name of a model of the package.
        output: The folder for the export; see `folder_of`.
        forms: Keys of `output_kinds.EXPORT_FILES`.
        config: The configuration.
        dataset: The folder of a dataset, for `litert_int8`: its faces tell the range of what passes
            between the layers, and what rounding it costs.
        overwrite: Whether an export that is there may be replaced.

    Raises:
        RunError: The folder is no finished run, one of the forms gives other answers or cannot be
            made, or a dataset is given that no form needs.
        DatasetError: The dataset is none, is damaged, or is not one for this model.
        StorageError: There is an export already, or the folder holds what is not ours.
    """
    run = trained_model.resolve_model_path(model)
    output_folder = OutputFolder(folder_of(model, output), EXPORT, overwrite=overwrite)
    if LITERT_INT8 in forms and dataset is None:
        raise RunError(
            f"{run}: {LITERT_INT8} is calibrated on faces; --dataset names the folder of a"
            " preprocess job"
        )
    if LITERT_INT8 not in forms and dataset is not None:
        raise RunError(
            f"{dataset}: no form that is asked for needs a dataset; add --format {LITERT_INT8}, or"
            " leave --dataset out"
        )
    output_folder.ensure_writable()
    model_on_disk = TrainedModel.open(model)
    info, trained = model_on_disk.info, model_on_disk.load_network()
    original = ReferenceModel.build(model_on_disk, trained, dataset, config.seed)
    rounded = formats.predict_on_cpu(trained, original.images)
    rounding = formats.largest_difference(rounded, original.expected)
    with TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        made = [original.write(form, scratch) for form in dict.fromkeys(forms)]
        computes = summarize_network(trained).precision
        result = _result(
            original, info, computes, rounding, benchmark_exports(made, model_on_disk, scratch)
        )
        _publish(result, scratch, output_folder, config)
    return result


def _result(
    original: ReferenceModel,
    info: ModelInfo,
    precision: str,
    rounding: float,
    made: list[ExportedModel],
) -> ExportManifest:
    return ExportManifest(
        model={
            "path": str(original.model.folder.resolve()),
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
        images=len(original.images),
        exports=made,
        versions=versions.package_versions(*_PACKAGES),
    )


def _publish(
    result: ExportManifest, scratch: Path, output_folder: OutputFolder, config: Config
) -> None:
    with output_folder.writing():
        output_folder.retract()
        for path in EXPORT_FILES.values():
            _delete(output_folder.path / path)
        for one in result.exports:
            _copy(scratch / one.path, output_folder.path / one.path)
        output_folder.commit(result.model_dump_json(indent=2) + "\n", config.write)


def _delete(path: Path) -> None:
    """Deletes a file or a folder, if it is there."""
    if path.is_dir():
        storage.remove_folder(path)
    else:
        storage.remove(path)


def _copy(source: Path, target: Path) -> None:
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
        # Of several files, copytree tells all at once, in a list.
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error


def summary(made: ExportManifest, folder: Path) -> str:
    """The result of the job for a terminal: the files, their sizes, what was measured."""
    rows = [
        [
            exported.format,
            str(folder / exported.path),
            f"{exported.bytes:,}",
            *_difference_cells(exported),
            f"{exported.relative_speed:.2f}",
        ]
        for exported in made.exports
    ]
    header = ["", "", "bytes", "difference", "allowed", "speed"]
    lines = [format_table(rows, header, ["left"] * 2 + ["right"] * 4)]
    lines += [
        f"(difference: the largest of two probabilities on {made.images} images, its own and those"
        " of the run's model in float32)",
        "(speed: images a second on one core, in units of the run's model in Keras)",
    ]
    for agreement in (one.agreement for one in made.exports if one.agreement):
        lines.append(
            f"in 8-bit integers, on {agreement.images:,} images of the {agreement.split} split:"
            f" accuracy {float(agreement.accuracy):.2%}, in float32"
            f" {float(agreement.float_accuracy):.2%}, the same emotion for"
            f" {float(agreement.agreement):.2%}"
        )
        if agreement.mismatch_reason:
            lines.append(f"score takes it only with --backend litert: {agreement.mismatch_reason}")
    if made.rounding:
        lines.append(
            f"the run itself computes in {made.precision}: its probabilities differ from those in"
            f" float32 by up to {made.rounding:.1e}"
        )
    return "\n".join([*lines, "", f"export {folder / ExportFile.EXPORT_INFO}"])


def _difference_cells(exported: ExportedModel) -> list[str]:
    if exported.largest_difference is None:
        return ["", ""]
    return [f"{exported.largest_difference:.1e}", f"{exported.tolerance:g}"]
