"""From a trained run to the forms that other programs load, each tried before it is published."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fer_pipeline import provenance, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.learning.model import bundle, exporting
from fer_pipeline.learning.model.bundle import RunInfo
from fer_pipeline.publication import CONFIG, EXPORT, EXPORTED

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


@dataclass(frozen=True)
class Exported:
    """One form of the model.

    Attributes:
        form: Its name, a key of `publication.EXPORTED`.
        path: Its folder or file, relative to the export.
        bytes: Its size.
        largest_difference: Of two probabilities, its own and those of the model in float32.
        tolerance: What that may be at most.
        sha256: Of each of its files, by their path relative to the export.
    """

    form: str
    path: str
    bytes: int
    largest_difference: float
    tolerance: float
    sha256: dict[str, str]


@dataclass(frozen=True)
class Export:
    """What a run of the job made; `export.json`.

    Attributes:
        model: Which model it was: its run's folder, the checksums of its file and its dataset.
        classes: The emotions in the order of the probabilities.
        size: The side of the images, in pixels.
        normalization: What the network sees of a pixel; the model itself applies it.
        enhancement: What images went through before, in training; the model does not apply it.
        signature: The names, dtypes and shapes of what goes in and comes out, of every form.
        precision: In which the run computes; the export computes in float32.
        rounding: The largest difference of two probabilities that this makes.
        images: How many images were compared.
        exports: The forms.
        versions: Of what made them.
    """

    model: dict[str, str]
    classes: list[str]
    size: int
    normalization: dict[str, Any]
    enhancement: dict[str, Any]
    signature: dict[str, Any]
    precision: str
    rounding: float
    images: int
    exports: list[Exported]
    versions: dict[str, str]


def export(
    model: str | Path,
    output: str | Path,
    forms: Sequence[str],
    config: Config,
    *,
    overwrite: bool = False,
) -> Export:
    """Exports the model of a finished run.

    Each form is written to a scratch folder, loaded from there and compared with the model before
    anything in the output is touched. `export.json` is written last and, in an overwrite, taken
    away first: a folder that has one holds a whole export of one model.

    Args:
        model: The run's folder.
        output: The folder for the export.
        forms: Keys of `publication.EXPORTED`.
        config: The configuration.
        overwrite: Whether an export that is there may be replaced.

    Raises:
        RunError: The folder is no finished run, or one of the forms gives other probabilities or
            cannot be made.
        StorageError: There is an export already, or the folder holds what is not ours.
    """
    run, folder = storage.local_path(model), storage.local_path(output)
    publication.claim(folder, EXPORT, overwrite=overwrite)
    trained, info = bundle.load(run)
    network = exporting.in_float32(trained)
    images = exporting.probe(info.size)
    expected = exporting.run_model(network, images)
    rounding = exporting.largest_difference(exporting.run_model(trained, images), expected)
    with TemporaryDirectory() as scratch:
        made = [
            _exported(run, form, network, images, expected, Path(scratch))
            for form in dict.fromkeys(forms)
        ]
        result = _result(run, info, rounding, len(images), made)
        _publish(result, Path(scratch), folder, config)
    return result


def _exported(
    run: Path, form: str, network: Any, images: Any, expected: Any, scratch: Path
) -> Exported:
    """Writes a form to a scratch folder, loads it from there and compares it with the model."""
    log.info("writing %s", form)
    chosen, path = exporting.FORMS[form], scratch / EXPORTED[form]
    chosen.write(network, path)
    difference = exporting.largest_difference(chosen.run(path, images), expected)
    # Written so that NaN is refused too.
    if not difference <= chosen.tolerance:
        raise RunError(
            f"{run}: as {form} its probabilities differ by up to {difference:.2g},"
            f" {chosen.tolerance:g} is allowed; nothing was exported, --format leaves a form out"
        )
    files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
    return Exported(
        form=form,
        path=EXPORTED[form],
        bytes=sum(file.stat().st_size for file in files),
        largest_difference=difference,
        tolerance=chosen.tolerance,
        sha256={str(file.relative_to(scratch)): bundle.digest(file) for file in files},
    )


def _result(run: Path, info: RunInfo, rounding: float, images: int, made: list[Exported]) -> Export:
    return Export(
        model={
            "path": str(run.resolve()),
            "sha256": info.sha256,
            "dataset_checksum": info.dataset_checksum,
        },
        classes=info.classes,
        size=info.size,
        normalization=asdict(info.normalization),
        enhancement=info.enhancement.model_dump(mode="json"),
        signature=exporting.signature(info.size, len(info.classes)),
        precision=info.precision,
        rounding=rounding,
        images=images,
        exports=made,
        versions=provenance.versions(*_PACKAGES),
    )


def _publish(result: Export, scratch: Path, folder: Path, config: Config) -> None:
    publication.begin(folder)
    # Here an older export ends. Without its mark, its configuration would not be ours.
    for name in (EXPORT.mark, CONFIG):
        storage.remove(folder / name)
    for path in EXPORTED.values():
        _delete(folder / path)
    for one in result.exports:
        _copy(scratch / one.path, folder / one.path)
    about = {"format": EXPORT.format, "format_version": FORMAT_VERSION, **asdict(result)}
    text = json.dumps(about, indent=2, allow_nan=False)
    storage.write_text(folder / EXPORT.mark, text + "\n")
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
        with storage.replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        return
    try:
        shutil.copytree(source, target)
    except OSError as error:
        # Of several files, copytree tells all at once, in a list.
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error


def summary(made: Export, output: str | Path) -> str:
    """The result of the job for a terminal: the files, their sizes, what was measured."""
    folder = storage.local_path(output)
    width = max(len(str(folder / one.path)) for one in made.exports)
    lines = [f"{'':<13}{'':<{width}}{'bytes':>12}{'difference':>12}{'allowed':>9}"]
    for one in made.exports:
        lines.append(
            f"{one.form:<13}{folder / one.path!s:<{width}}{one.bytes:>12,}"
            f"{one.largest_difference:>12.1e}{one.tolerance:>9g}"
        )
    lines.append(
        f"(difference: the largest of two probabilities on {made.images} images, its own and those"
        " of the run's model in float32)"
    )
    if made.rounding:
        lines.append(
            f"the run itself computes in {made.precision}: its probabilities differ from these by"
            f" up to {made.rounding:.1e}"
        )
    return "\n".join([*lines, "", f"export {folder / EXPORT.mark}"])
