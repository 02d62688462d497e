"""From a trained run to the forms that other programs load, each tried before it is published."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from fer_pipeline import provenance, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.learning.model import bundle, exporting, run_folder
from fer_pipeline.learning.model.exports import INT8, Export, Exported
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.learning.model.summary import describe
from fer_pipeline.publication import CONFIG, EXPORT, EXPORTED
from fer_pipeline.stages.forms import Original, timed

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "ai-edge-litert")


def default_forms(dataset: str | Path | None) -> list[str]:
    """The forms that are exported where none is named: all that can be."""
    return [form for form in EXPORTED if form != INT8 or dataset is not None]


def folder_of(model: str | Path, output: str | Path | None) -> Path:
    """Where an export goes: by default into the run's own folder, where scoring finds it.

    Raises:
        StorageError: The model is one of the package, which is left as it is.
    """
    if output is not None:
        return storage.path(output)
    run = run_folder.located(model)
    if run_folder.is_shipped(run):
        raise StorageError(f"{model}: is a model of the package; --output names a folder of yours")
    return run / run_folder.EXPORTS


def export(
    model: str | Path,
    output: str | Path | None,
    forms: Sequence[str],
    config: Config,
    *,
    dataset: str | Path | None = None,
    overwrite: bool = False,
) -> Export:
    """Exports the model of a finished run.

    Each form is written to a scratch folder, loaded from there and compared with the model before
    anything in the output is touched. `export.json` is written last and, in an overwrite, taken
    away first: a folder that has one holds a whole export of one model.

    Args:
        model: The run's folder, or the name of a model of the package.
        output: The folder for the export; see `folder_of`.
        forms: Keys of `publication.EXPORTED`.
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
    run, folder = run_folder.located(model), folder_of(model, output)
    if INT8 in forms and dataset is None:
        raise RunError(
            f"{run}: {INT8} is calibrated on faces; --dataset names the folder of a preprocess job"
        )
    if INT8 not in forms and dataset is not None:
        raise RunError(
            f"{dataset}: no form that is asked for needs a dataset; add --format {INT8}, or leave"
            " --dataset out"
        )
    publication.claim(folder, EXPORT, overwrite=overwrite)
    trained, info = bundle.load(run)
    original = Original.of(run, trained, info, dataset, config.seed)
    rounded = exporting.run_model(trained, original.images)
    rounding = exporting.largest_difference(rounded, original.expected)
    with TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        made = [original.write(form, scratch) for form in dict.fromkeys(forms)]
        computes = describe(trained).precision
        result = _result(original, info, computes, rounding, timed(made, run, info, scratch))
        _publish(result, scratch, folder, config, overwrite=overwrite)
    return result


def _result(
    original: Original, info: RunInfo, precision: str, rounding: float, made: list[Exported]
) -> Export:
    return Export(
        model={
            "path": str(original.run.resolve()),
            "sha256": info.sha256,
            "dataset_checksum": info.dataset_checksum,
        },
        classes=info.classes,
        size=info.size,
        normalization=asdict(info.normalization),
        enhancement=info.enhancement.model_dump(mode="json"),
        signature=exporting.signature(info.size, len(info.classes)),
        precision=precision,
        rounding=rounding,
        images=len(original.images),
        exports=made,
        versions=provenance.versions(*_PACKAGES),
    )


def _publish(
    result: Export, scratch: Path, folder: Path, config: Config, *, overwrite: bool
) -> None:
    with publication.writing(folder, EXPORT, overwrite=overwrite):
        # Here an older export ends. Without its mark, its configuration would not be ours.
        for name in (EXPORT.mark, CONFIG):
            storage.remove(folder / name)
        for path in EXPORTED.values():
            _delete(folder / path)
        for one in result.exports:
            _copy(scratch / one.path, folder / one.path)
        storage.write_text(folder / EXPORT.mark, result.model_dump_json(indent=2) + "\n")
        config.write(folder / CONFIG)
        publication.clean(folder, EXPORT, keep=())


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
    if not storage.is_local(target):
        for file in (path for path in source.rglob("*") if path.is_file()):
            storage.copy(file, target / str(file.relative_to(source)))
        return
    try:
        shutil.copytree(source, target)
    except OSError as error:
        # Of several files, copytree tells all at once, in a list.
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error


def summary(made: Export, folder: Path) -> str:
    """The result of the job for a terminal: the files, their sizes, what was measured."""
    width = max(len(str(folder / one.path)) for one in made.exports)
    lines = [f"{'':<13}{'':<{width}}{'bytes':>12}{'difference':>12}{'allowed':>9}{'speed':>8}"]
    for one in made.exports:
        said = f"{one.format:<13}{folder / one.path!s:<{width}}{one.bytes:>12,}"
        if one.largest_difference is None:
            said += f"{'':>21}"
        else:
            said += f"{one.largest_difference:>12.1e}{one.tolerance:>9g}"
        lines.append(f"{said}{one.relative_speed:>8.2f}")
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
        if agreement.unequal:
            lines.append(f"score takes it only with --backend litert: {agreement.unequal}")
    if made.rounding:
        lines.append(
            f"the run itself computes in {made.precision}: its probabilities differ from those in"
            f" float32 by up to {made.rounding:.1e}"
        )
    return "\n".join([*lines, "", f"export {folder / EXPORT.mark}"])
